// lint.mjs DOCUMENT: what Redocly's rules find in an OpenAPI document, a line each.
import openapi from '@redocly/openapi-core';

const config = await openapi.createConfig({
  extends: ['recommended'],
  rules: {
    // Errors of all kinds have one form: response "default".
    'operation-4xx-response': 'off',
    'no-unused-components': 'error',
  },
});
for (const p of await openapi.lint({ ref: process.argv[2], config })) {
  console.log(`${p.severity} ${p.ruleId}: ${p.message} ${p.location[0]?.pointer ?? ''}`);
}
