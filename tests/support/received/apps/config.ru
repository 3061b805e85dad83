# Rack with MethodOverride, and JSON merged into the parameters as Rails and rack-contrib merge it.
#
# Answers every request with what Rack understood of it. The environment says the routes: pairs of method and template.
require 'json'
require 'rack'

ROUTES = JSON.parse(ENV.fetch('ROUTES')).map { |method, template| [method, template, template.split('/', -1)] }

# Returns the parameters in the path where it fits the template, else nil.
def fit(path, template)
  return nil unless path.length == template.length

  path.zip(template).each_with_object({}) do |(segment, wanted), found|
    if wanted.start_with?('{')
      return nil if segment.empty?

      found[wanted[1..-2]] = Rack::Utils.unescape_path(segment)
    elsif segment != wanted
      return nil
    end
  end
end

def understood(request)
  segments = request.path_info.split('/', -1)
  template, path = ROUTES.filter_map do |method, name, wanted|
    found = fit(segments, wanted) if method == request.request_method
    [name, found] if found
  end.first
  return nil unless template

  sources = { path: path, query: request.GET, form: request.POST, params: request.params }
  if request.media_type&.end_with?('json')
    request.body.rewind
    text = request.body.read
    sources[:json] = JSON.parse(text) unless text.empty?
  end
  headers = request.each_header.filter_map do |name, value|
    [name.delete_prefix('HTTP_').tr('_', '-').downcase, value] if name.start_with?('HTTP_', 'CONTENT_')
  end
  { method: request.request_method, host: request.host, template: template, path: Rack::Utils.unescape_path(request.path_info),
    sources: sources, lists: Rack::Utils.parse_query(request.query_string), headers: headers }
end

use Rack::MethodOverride
run(lambda do |env|
  found = understood(Rack::Request.new(env))
  [found ? 200 : 404, { 'content-type' => 'application/json' }, [JSON.generate(found || {})]]
rescue ArgumentError, JSON::ParserError, Rack::QueryParser::ParameterTypeError, Rack::QueryParser::InvalidParameterError, EOFError
  [400, { 'content-type' => 'application/json' }, ['{}']]
end)
