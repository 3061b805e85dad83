//! The steps of a test as messages of the protocol.

use std::collections::BTreeMap;

use authz_bundle::source::Many;
use authz_kernel::decision::Time;
use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::authz::v1::argument_limit::Limit;
use authz_lane::proto::authz::v1::reported_value::Value as ReportedKind;
use authz_lane::proto::envoy::config::core::v3::{HeaderMap, HeaderValue, Metadata};
use authz_lane::proto::envoy::service::auth::v3 as envoy;
use authz_lane::proto::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Timestamp, Value};

use crate::callers::StartParties;
use crate::case_file::{
    DelegateForm, EndForm, EndWord, HttpForm, LimitForm, ParamForm, ReportForm, ResultWord,
    ScopeForm, SelectorForm, StartForm, ValuesForm,
};
use crate::steps::TestStep;

/// Namespace of the metadata that an earlier filter of a proxy writes.
const NAMESPACE: &str = "authz";
/// The key of `context_extensions` that lists obligations.
const OBLIGATIONS: &str = "authz.supported_obligations";

/// The call of a step that names an operation.
///
/// Args: `task`: id of the step's task; empty: none.
pub(crate) fn check(step: &TestStep<'_>, operation: &str, task: &str) -> wire::CheckRequest {
    let arguments = match (step.input_text, step.input) {
        (Some(text), _) => text.to_owned(),
        (None, Some(input)) => input.to_string(),
        (None, None) => String::new(),
    };
    let request = step.request;
    wire::CheckRequest {
        task: task.to_owned(),
        operation: operation.to_owned(),
        arguments_json: arguments.into_bytes(),
        resource: request.resource.clone().unwrap_or_default(),
        destinations: request.destinations.0.clone(),
        labels: request.labels.0.clone(),
        supported_obligations: request.supported_obligations.0.clone(),
        session_context: request.session_context.clone(),
        wants_credential: step.issue.is_some(),
        ..Default::default()
    }
}

/// The call of a step that is an HTTP request, as Envoy sends it.
///
/// Args: `task`: as of [`check`].
pub(crate) fn http_check(step: &TestStep<'_>, http: &HttpForm, task: &str) -> Vec<u8> {
    let attributes = envoy::AttributeContext {
        request: Some(Request { http: Some(http_request(http, task)), ..Default::default() }),
        context_extensions: extensions(http, &step.request.supported_obligations),
        metadata_context: Some(metadata(step)),
        ..Default::default()
    };
    envoy::CheckRequest { attributes: Some(attributes) }.encode_to_vec()
}

fn http_request(http: &HttpForm, task: &str) -> HttpRequest {
    let body = http.body.as_deref();
    let mut headers: Vec<HeaderValue> =
        http.headers.iter().map(|(name, value)| header(name, value)).collect();
    if !task.is_empty() {
        headers.push(header("authz-task", task));
    }
    if let Some(body) = body {
        headers.push(header("content-length", &body.len().to_string()));
    }
    if body.is_some() || http.partial.is_some() {
        let is_partial = http.partial == Some(true);
        headers
            .push(header("x-envoy-auth-partial-body", if is_partial { "true" } else { "false" }));
    }
    HttpRequest {
        method: http.method.clone().unwrap_or_else(|| "GET".to_owned()),
        host: http.host.clone().unwrap_or_else(|| "crm.example".to_owned()),
        path: http.path.clone().unwrap_or_else(|| "/".to_owned()),
        header_map: Some(HeaderMap { headers }),
        body: body.unwrap_or_default().to_owned(),
        size: body.map_or(0, |body| i64::try_from(body.len()).unwrap_or(i64::MAX)),
        ..Default::default()
    }
}

fn header(name: &str, value: &str) -> HeaderValue {
    let raw_value = value.as_bytes().to_vec();
    HeaderValue { key: name.to_owned(), raw_value, ..Default::default() }
}

/// The extensions of the proxy, with the obligations that the step adds.
fn extensions(http: &HttpForm, obligations: &Many<String>) -> BTreeMap<String, String> {
    let mut extensions = http.extensions.clone();
    if !obligations.0.is_empty() {
        let listed = extensions.remove(OBLIGATIONS);
        let all: Vec<String> = listed.into_iter().chain(obligations.0.iter().cloned()).collect();
        extensions.insert(OBLIGATIONS.to_owned(), all.join(","));
    }
    extensions
}

/// The labels and the context of the session, as an earlier filter of the proxy writes them.
fn metadata(step: &TestStep<'_>) -> Metadata {
    let mut fields = BTreeMap::new();
    let labels = &step.request.labels.0;
    if !labels.is_empty() {
        let values = labels.iter().cloned().map(text).collect();
        fields.insert("labels".to_owned(), value(Kind::ListValue(ListValue { values })));
    }
    let context = &step.request.session_context;
    if !context.is_empty() {
        fields.insert("session_context".to_owned(), text(context.clone()));
    }
    let filter_metadata = BTreeMap::from([(NAMESPACE.to_owned(), Struct { fields })]);
    Metadata { filter_metadata, ..Metadata::default() }
}

/// The start of a task.
pub(crate) fn start(form: &StartForm, parties: &StartParties, now: Time) -> wire::StartRequest {
    let subject = parties.subject.as_ref().filter(|_| form.asserted);
    wire::StartRequest {
        template: form.template.value.clone(),
        params: Some(params(&form.params)),
        prompt: form.prompt.clone(),
        scope: form.scope.iter().map(scope).collect(),
        assignee: parties.assignee.spiffe_id.clone(),
        deadline: parties.lifetime_ms.map(|lifetime| after(now, lifetime)),
        asserted_subject: subject
            .map(|subject| format!("{}/{}", subject.issuer, subject.sub))
            .unwrap_or_default(),
        ..Default::default()
    }
}

/// The delegation of a task.
///
/// Args: `parent`: id of the task above; `assignee`: SPIFFE id.
pub(crate) fn delegate(
    form: &DelegateForm,
    parent: &str,
    assignee: &str,
    (lifetime_ms, now): (Option<i64>, Time),
) -> wire::DelegateRequest {
    wire::DelegateRequest {
        parent: parent.to_owned(),
        assignee: assignee.to_owned(),
        template: form.template.as_ref().map(|name| name.value.clone()).unwrap_or_default(),
        params: Some(params(&form.params)),
        scope: form.scope.iter().map(scope).collect(),
        deadline: lifetime_ms.map(|lifetime| after(now, lifetime)),
        ..Default::default()
    }
}

/// The end of a task.
pub(crate) fn end(form: EndForm, task: &str) -> wire::EndRequest {
    let status = match form.status {
        EndWord::Completed => wire::TaskStatus::Completed,
        EndWord::Aborted => wire::TaskStatus::Aborted,
        EndWord::Revoked => wire::TaskStatus::Revoked,
    };
    wire::EndRequest { task: task.to_owned(), status: status.into(), ..Default::default() }
}

/// The report of a call's outcome.
pub(crate) fn report(form: &ReportForm, decision_id: &str) -> wire::ReportRequest {
    let result = match form.result {
        ResultWord::Ok => wire::ReportResult::Ok,
        ResultWord::Failed => wire::ReportResult::Failed,
        ResultWord::Aborted => wire::ReportResult::Aborted,
    };
    wire::ReportRequest {
        decision_id: decision_id.to_owned(),
        result: result.into(),
        labels: form.labels.iter().cloned().collect(),
        actuals: form.actuals.clone(),
        values: form.values.iter().flat_map(|(pointer, form)| values(pointer, form)).collect(),
        ..Default::default()
    }
}

fn values(pointer: &str, form: &ValuesForm) -> Vec<wire::ReportedValue> {
    let value = |(item, form): (u32, &ParamForm)| wire::ReportedValue {
        pointer: pointer.to_owned(),
        item,
        value: Some(match form {
            ParamForm::Bool(flag) => ReportedKind::Flag(*flag),
            ParamForm::Long(number) => ReportedKind::Integer(*number),
            ParamForm::Text(text) => ReportedKind::Text(text.clone()),
        }),
    };
    match form {
        ValuesForm::One(one) => vec![value((0, one))],
        ValuesForm::Items(items) => (0_u32..)
            .zip(items)
            .filter_map(|(item, form)| Some(value((item, form.as_ref()?))))
            .collect(),
    }
}

fn params(forms: &BTreeMap<String, ParamForm>) -> Struct {
    let fields = forms.iter().map(|(name, form)| {
        let kind = match form {
            ParamForm::Bool(flag) => Kind::BoolValue(*flag),
            #[expect(
                clippy::cast_precision_loss,
                reason = "JSON numbers of the protocol are doubles"
            )]
            ParamForm::Long(number) => Kind::NumberValue(*number as f64),
            ParamForm::Text(text) => Kind::StringValue(text.clone()),
        };
        (name.clone(), value(kind))
    });
    Struct { fields: fields.collect() }
}

fn scope(form: &ScopeForm) -> wire::ScopeEntry {
    let SelectorForm { collections, ids, path_prefix, label_ceiling } = form.resources.clone();
    let texts = |set: Option<std::collections::BTreeSet<String>>| {
        set.into_iter().flatten().collect::<Vec<String>>()
    };
    let limit = |form: &LimitForm| match form {
        LimitForm::OneOf(all) => {
            Limit::OneOf(wire::StringValues { values: all.iter().cloned().collect() })
        }
        LimitForm::Range([minimum, maximum]) => {
            Limit::Range(wire::IntegerRange { minimum: *minimum, maximum: *maximum })
        }
        LimitForm::Prefix(text) => Limit::Prefix(text.clone()),
    };
    let arguments = form
        .arguments
        .iter()
        .map(|(pointer, form)| (pointer.clone(), wire::ArgumentLimit { limit: Some(limit(form)) }));
    wire::ScopeEntry {
        operation: form.operation.clone(),
        resources: Some(wire::ResourceSelector {
            collections: texts(collections),
            ids: texts(ids),
            path_prefix: path_prefix.unwrap_or_default(),
            label_ceiling: texts(label_ceiling),
        }),
        arguments: arguments.collect(),
        uses: form.uses.unwrap_or_default(),
    }
}

fn after(now: Time, milliseconds: i64) -> Timestamp {
    let at = now.0.saturating_add(milliseconds);
    let nanos = i32::try_from(at.rem_euclid(1_000)).unwrap_or_default().saturating_mul(1_000_000);
    Timestamp { seconds: at.div_euclid(1_000), nanos }
}

fn text(text: String) -> Value {
    value(Kind::StringValue(text))
}

const fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}
