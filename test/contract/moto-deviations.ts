/**
 * Where moto, pinned in moto-server.ts, is known to differ from AWS. The suite asserts each of these, so that a moto
 * that has changed is noticed. A difference that is not named here is a mistake of the fake's.
 */
export const MOTO_DEVIATIONS = {
  'uses disabled keys': 'encrypts, decrypts and rotates under a key that is disabled',
  'uses keys pending deletion': 'encrypts and decrypts under a key that is pending deletion, and enables it',
  'AccessDenied for another key':
    'AccessDeniedException where the KeyId of Decrypt is not the key of the blob',
  'ignores SourceKeyId': 'ReEncrypt does not look at SourceKeyId',
  'ambiguous context':
    'joins the pairs of a context without lengths, so that different ones are taken as one',
  'no defaults in DescribeKey': 'KeyUsage and MultiRegion are null where CreateKey did not name them',
  'no key material ids': 'DescribeKey, Decrypt and ReEncrypt do not say which key material they mean',
  'no algorithm in answers': 'Encrypt, Decrypt and ReEncrypt do not say the algorithm',
  'bare answers about deletion': 'names the key as the request does, and says neither state nor window',
  'takes any window': 'answers a window of deletion that is too short with no date, and no error',
  'takes ARNs of other regions': 'looks only at what follows :key/ in an ARN',
  'ListAliases has those of AWS': 'lists alias/aws/... of keys that nobody made',
  'no UnknownOperationException': 'answers an operation that it does not have with status 500 and a page',
  'no SerializationException': 'answers what is not JSON with status 500 and a page',
} as const;

export type Deviation = keyof typeof MOTO_DEVIATIONS;
