/** What the readers of init's records (boot.json, events.json) have in common. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

const oneLine = (text: string) => text.trim().replaceAll(/\s*\n\s*/gu, " ")

/** Decodes a value; fails with what is wrong with it, in one line. */
export const decode =
  <A>(schema: Schema.Decoder<A>) =>
  (value: unknown): Effect.Effect<A, string> =>
    Effect.mapError(Schema.decodeUnknownEffect(schema)(value), (error) => oneLine(error.message))

/** Parses text as JSON; fails with what is wrong with it, in one line. */
export const parse = (text: string): Effect.Effect<unknown, string> =>
  Effect.try({
    try: (): unknown => JSON.parse(text),
    catch: (error) => (error instanceof Error ? oneLine(error.message) : String(error)),
  })

/** The JSON Schema (draft 2020-12) of a record. */
export const jsonSchemaOf = (
  schema: Schema.Top,
  about: { readonly title: string; readonly description: string },
): Readonly<Record<string, unknown>> => {
  const document = Schema.toJsonSchemaDocument(schema)
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    ...about,
    ...document.schema,
    $defs: document.definitions,
  }
}
