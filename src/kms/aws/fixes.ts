/** What an operator can do about an error of AWS KMS: a statement for a policy, a command. */
import { AwsKmsError } from './errors.js';
import { parseKeyArn } from './key-uri.js';

/** Undefined where nothing is known that helps. `target` is the key's ARN, or how the URI names it. */
export function fixOf(permission: string, error: unknown, target: string): string | undefined {
  if (!(error instanceof AwsKmsError)) return undefined;
  if (error.ofCredentials) {
    return 'give the daemon valid AWS credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the role of the machine); without a restart where they are in a file';
  }
  switch (error.awsName) {
    case 'AccessDeniedException':
      return allow(permission, error.awsMessage, target);
    case 'DisabledException':
      return `${command('enable-key', target)}; where the key waits to be deleted, first: ${command('cancel-key-deletion', target)}`;
    case 'KMSInvalidStateException':
      return `where the key waits to be deleted: ${command('cancel-key-deletion', target)}, then: ${command('enable-key', target)}; else import its key material, or connect its key store`;
    case 'CredentialsOutage':
      return 'make what gives the daemon its AWS credentials answer (instance or container metadata, STS, SSO, credential_process), or give it others; where there is no instance metadata, AWS_EC2_METADATA_DISABLED=true says so';
    case 'KeyStoreOutage':
      return 'look after the key store of the key: its proxy, or its CloudHSM cluster, does not answer AWS KMS';
    case 'NotFoundException':
      return 'name a key that exists: the ARN says in which account and region it is looked for, else AWS_REGION and the credentials do';
    case 'InvalidKeyUsageException':
      return 'take a key of KeyUsage ENCRYPT_DECRYPT and KeySpec SYMMETRIC_DEFAULT';
    case 'NoRegion':
      return 'set AWS_REGION, or name the key by its ARN';
    default:
      return undefined;
  }
}

function allow(permission: string, message: string, target: string): string {
  const principal = /\b(arn:aws[a-z-]*:(?:iam|sts)::[0-9]{12}:[^\s"]+)/.exec(message)?.[1];
  const inKey = statement({
    Effect: 'Allow',
    Principal: { AWS: principal ?? 'PRINCIPAL' },
    Action: permission,
    Resource: '*',
  });
  const resource = parseKeyArn(target) === undefined ? 'KEY-ARN' : target;
  const inIdentity = statement({ Effect: 'Allow', Action: permission, Resource: resource });
  const optional = permission.startsWith('kms:ReEncrypt')
    ? ' Without it sealbd decrypts and encrypts instead, and the DEK passes through the daemon.'
    : '';
  return (
    `in the policy of the key: ${inKey}; or, where that policy lets IAM decide, in a policy of ` +
    `${principal ?? "the daemon's principal"}: ${inIdentity}. A principal of another account needs both.${optional}`
  );
}

function statement(parts: object): string {
  return JSON.stringify(parts);
}

function command(name: string, target: string): string {
  const key = parseKeyArn(target);
  const region = key === undefined ? '' : ` --region ${key.region}`;
  return `aws kms ${name} --key-id ${target}${region}`;
}
