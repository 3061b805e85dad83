"""Flask behind `ProxyFix`, and the method override of its own documentation.

Answers every request with what Flask understood of it. The environment says the routes: pairs of method and template.
"""

import json
import os
from typing import Any

from flask import Flask, jsonify, request
from werkzeug.middleware.proxy_fix import ProxyFix

app = Flask(__name__)


class MethodOverride:
    """Takes the method from `X-HTTP-Method-Override`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Passes the request on."""
        method = environ.get("HTTP_X_HTTP_METHOD_OVERRIDE", "").upper()
        if method in {"GET", "POST", "PATCH", "PUT", "DELETE"}:
            environ["REQUEST_METHOD"] = method
        return self._inner(environ, start_response)


def _answer(template: str) -> Any:
    def view(**path: str) -> Any:
        return jsonify(
            method=request.method,
            host=request.host.partition(":")[0],
            template=template,
            path=request.path,
            sources={
                "path": path,
                "values": request.values.to_dict(),
                "query": request.args.to_dict(),
                "form": request.form.to_dict(),
                "json": request.get_json(silent=True),
            },
            lists=request.args.to_dict(flat=False),
            headers=[[name.lower(), value] for name, value in request.headers.items()],
        )

    return view


for _method, _template in json.loads(os.environ["ROUTES"]):
    app.add_url_rule(
        _template.replace("{", "<").replace("}", ">"),
        f"{_method} {_template}",
        _answer(_template),
        methods=[_method],
    )
app.wsgi_app = MethodOverride(ProxyFix(app.wsgi_app, x_host=1, x_prefix=1))
