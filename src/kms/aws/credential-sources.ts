/**
 * What the AWS settings name to get credentials from, beyond text that holds them: each can be out of order for a while,
 * and the SDK does not tell that from its not being there. The names are those of AWS's own settings.
 */
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { errnoOf } from '../../base/errors.js';

/** Settings of a profile that name somebody to ask. */
const ASKS =
  /^\s*(role_arn|credential_process|credential_source|web_identity_token_file|sso_\w+|login_session)\s*=/gm;

/** In words, for people; empty where there is nobody to ask. */
export async function credentialSources(env: NodeJS.ProcessEnv = process.env): Promise<string[]> {
  const sources: string[] = [];
  const isSet = (name: string): boolean => (env[name] ?? '') !== '';
  const disabled = env.AWS_EC2_METADATA_DISABLED ?? '';
  if (isSet('AWS_CONTAINER_CREDENTIALS_RELATIVE_URI') || isSet('AWS_CONTAINER_CREDENTIALS_FULL_URI')) {
    sources.push('the credentials of the container');
  } else if (disabled === '' || disabled === 'false') {
    sources.push('the instance metadata (AWS_EC2_METADATA_DISABLED is not set)');
  }
  if (isSet('AWS_WEB_IDENTITY_TOKEN_FILE') && isSet('AWS_ROLE_ARN')) sources.push('the web identity');
  const home = env.HOME ?? homedir();
  const files = [
    env.AWS_CONFIG_FILE ?? join(home, '.aws', 'config'),
    env.AWS_SHARED_CREDENTIALS_FILE ?? join(home, '.aws', 'credentials'),
  ];
  for (const file of files) sources.push(...(await namedIn(file)));
  return sources;
}

async function namedIn(file: string): Promise<string[]> {
  try {
    const settings = (await readFile(file, 'utf8')).matchAll(ASKS);
    return [...new Set([...settings].map(([, setting]) => `${setting} in ${file}`))];
  } catch (error) {
    // Whatever it names: who cannot read it does not know that there is nothing.
    return errnoOf(error) === 'ENOENT' ? [] : [`${file}, which cannot be read`];
  }
}
