SwaggerUIBundle({
  url: "../openapi.json",
  dom_id: "#explorer",
  presets: [SwaggerUIBundle.presets.apis],
  deepLinking: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  // The schemas are shown with the operations that use them; all of them in a row help nobody.
  defaultModelsExpandDepth: -1,
  // It would send the document's address to a stranger.
  validatorUrl: "none",
});
