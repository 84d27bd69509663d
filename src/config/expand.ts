/**
 * Expands `${VAR}` and `${VAR:-default}` in one value of understudy.yaml. The raw text, the key it
 * stands under and the environment flow in, the value flows out. It is called when the value is
 * used, never at load, so an agent needs the secrets of its own node only. `$${` is a literal `${`.
 */
import { UnderstudyError } from '../errors/understudy-error.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

const reference = /\$\$\{|\$\{([^}]*)(\}?)/g;
const insidePattern = /^([A-Za-z_][A-Za-z0-9_]*)(?::-([\s\S]*))?$/;

/** As in a shell, `:-` also stands in for a variable that is set to the empty string. */
export function expandVariables(raw: string, key: string, environment: Environment): string {
  return raw.replace(reference, (whole: string, inside: string | undefined, brace: string) => {
    if (inside === undefined) return whole.slice(1);
    const match = insidePattern.exec(inside);
    if (match === null || brace === '') {
      throw new UnderstudyError(
        'CONFIG_INVALID',
        `${key} holds a \${…} that is not a variable`,
        `Write \${NAME} or \${NAME:-default}; write $\${ for a literal \${.`,
      );
    }
    const [, name = '', fallback] = match;
    // Not what an object inherits: ${constructor} is not a variable.
    const value = Object.hasOwn(environment, name) ? environment[name] : undefined;
    if (fallback !== undefined) return value === undefined || value === '' ? fallback : value;
    if (value !== undefined) return value;
    throw new UnderstudyError(
      'CONFIG_INVALID',
      `the environment variable ${name}, which ${key} uses, is not set`,
      `Set ${name}, or give it a default in understudy.yaml: \${${name}:-…}.`,
    );
  });
}
