// Express, as its own guide and that of method-override set it up behind a proxy.
//
// Answers every request with what Express understood of it. The environment says the port, the folder with the libraries and the
// routes: pairs of method and template.
import { createRequire } from 'node:module'

const require = createRequire(`${process.env.LIBRARIES}/`)
const express = require('express')
const methodOverride = require('method-override')

const app = express()
app.set('trust proxy', true)
app.use(express.json({ type: ['application/json', 'application/merge-patch+json'] }))
app.use(express.urlencoded({ extended: true }))
for (const header of ['X-HTTP-Method', 'X-HTTP-Method-Override', 'X-Method-Override']) app.use(methodOverride(header))
app.use(methodOverride('_method'))
app.use(methodOverride((request) => request.body?._method))

const answer = (template) => (request, response) => {
  const body = request.body ?? {}
  response.json({
    method: request.method,
    host: request.hostname,
    template,
    path: request.path,
    sources: { path: request.params, query: request.query, body },
    lists: request.query,
    headers: Object.entries(request.headers).map(([name, value]) => [name, String(value)]),
  })
}
for (const [method, template] of JSON.parse(process.env.ROUTES)) {
  app[method.toLowerCase()](template.replaceAll(/{(\w+)}/g, ':$1'), answer(template))
}
app.use((request, response) => response.status(404).json({}))
// A body that Express does not read ends the request.
app.use((error, request, response, next) => response.status(error.status ?? 500).json({}))
app.listen(Number(process.env.PORT), '127.0.0.1')
