/**
 * Expands `${VAR}` and `${VAR:-default}` in one value of understudy.yaml. Callers expand a value
 * when they use it, never at load, so an agent needs the secrets of its own node only. `$${` is a
 * literal `${`.
 */
import { malformedVariable, variableNotSet } from '../errors/usage.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

const reference = /\$\$\{|\$\{([^}]*)(\}?)/g;
const insidePattern = /^([A-Za-z_][A-Za-z0-9_]*)(?::-([\s\S]*))?$/;

/** As in a shell, `:-` also replaces a variable that is set to the empty string. */
export function expandVariables(raw: string, key: string, environment: Environment): string {
  return raw.replace(reference, (whole: string, inside: string | undefined, brace: string) => {
    if (inside === undefined) return whole.slice(1);
    const match = insidePattern.exec(inside);
    if (match === null || brace === '') throw malformedVariable(key);
    const [, name = '', fallback] = match;
    // Own properties only: ${constructor} is not a variable.
    const value = Object.hasOwn(environment, name) ? environment[name] : undefined;
    if (fallback !== undefined) return value === undefined || value === '' ? fallback : value;
    if (value !== undefined) return value;
    throw variableNotSet(name, key);
  });
}
