/**
 * Takes secrets out of text before a person, a log or a JSON answer sees it. Any text flows in; the
 * same text flows out with the password of every URL and of every `password=` pair replaced. It
 * rather hides too much than too little: an unescaped `@` or `/` in a password is hidden with it.
 */
const urlPassword = /\b([a-z][a-z0-9+.-]*:\/\/[^\s:@/?#]*):\S*@/gi;
const passwordPair =
  /(\b(?:password|passwd|pwd|sslpassword)\s*=\s*)('[^']*'|"[^"]*"|[^\s&;,'"]+)/gi;

export const redacted = '***';

export function redactText(text: string): string {
  return text.replace(urlPassword, `$1:${redacted}@`).replace(passwordPair, `$1${redacted}`);
}

/** Also replaces known secrets wherever they stand, the longest first. */
export function redactSecrets(text: string, secrets: Iterable<string>): string {
  let result = redactText(text);
  const longestFirst = [...secrets].sort((a, b) => b.length - a.length);
  for (const secret of longestFirst) {
    if (secret.length >= shortestSecretLength) result = result.replaceAll(secret, redacted);
  }
  return result;
}

/** A shorter one would turn every text into asterisks and tell the reader what it is. */
const shortestSecretLength = 4;
