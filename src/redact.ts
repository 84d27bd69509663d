/**
 * Removes secrets from a text before it is printed, logged or answered as JSON: the password of
 * every URL and of every `password=` pair is replaced. It hides too much rather than too little: an
 * unescaped `@` or `/` in a password is hidden with it.
 */
const urlPassword = /\b([a-z][a-z0-9+.-]*:\/\/[^\s:@/?#]*):\S*@/gi;
const passwordPair =
  /(\b(?:password|passwd|pwd|sslpassword)\s*=\s*)('[^']*'|"[^"]*"|[^\s&;,'"]+)/gi;

export const redacted = '***';

export function redactText(text: string): string {
  return text.replace(urlPassword, `$1:${redacted}@`).replace(passwordPair, `$1${redacted}`);
}

/** Also replaces known secrets wherever they occur, the longest first. */
export function redactSecrets(text: string, secrets: Iterable<string>): string {
  let result = redactText(text);
  const longestFirst = [...secrets].sort((a, b) => b.length - a.length);
  for (const secret of longestFirst) {
    if (secret.length >= shortestSecretLength) result = result.replaceAll(secret, redacted);
  }
  return result;
}

/** Replacing a shorter one would turn every text into asterisks, and so reveal the secret. */
const shortestSecretLength = 4;
