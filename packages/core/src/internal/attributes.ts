/** `key=value` with the value quoted as JSON where it has to be. */
export const formatAttributes = (attributes: Readonly<Record<string, string>>): string =>
  Object.entries(attributes)
    .map(([key, value]) => `${key}=${/^[\w./:@+-]+$/u.test(value) ? value : JSON.stringify(value)}`)
    .join(" ")
