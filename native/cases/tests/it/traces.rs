//! Plans of small bundles, and traces that run on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_cases::run;
use authz_kernel::decision::Time;
use authz_kernel::plan::Plan;
use authz_kernel::source;

/// 2026-11-25T00:00:00Z.
pub(crate) const NOW: Time = Time(1_795_564_800_000);

/// The plan of a bundle.
pub(crate) fn compiled(manifest: &str, facts: &str, policies: &str) -> Arc<Plan> {
    let files: BTreeMap<String, Vec<u8>> =
        [("bundle.yaml", manifest), ("facts.yaml", facts), ("policies/a.cedar", policies)]
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
            .collect();
    let model = source::load(&files, &BTreeMap::new()).unwrap_or_else(|error| panic!("{error}"));
    Arc::new(Plan::compile(model, None).unwrap_or_else(|error| panic!("{error}")))
}

/// Runs the steps of one trace, in a task of the template `desk`; returns the steps that came out otherwise.
pub(crate) fn trace(plan: &Arc<Plan>, steps: &str) -> Vec<String> {
    let text = format!(
        "fixtures: {{agents: {{bot: 'spiffe://a.example/ns/desk/sa/bot', sub: 'spiffe://a.example/ns/desk/sa/sub'}}}}\n\
         tests:\n  - trace: t\n    task: {{template: desk, agent: bot}}\n    steps:\n{steps}"
    );
    let files = BTreeMap::from([("t.yaml".to_owned(), text.into_bytes())]);
    let report = run(plan, &files, NOW);
    let failed = report.failed.iter();
    failed.map(|f| format!("{}: {} != {} ({})", f.step, f.actual, f.expected, f.message)).collect()
}
