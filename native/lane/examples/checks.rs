//! Requests on one thread, without a server: what `bench/README.md` counts instructions and misses of the cache with.
//!
//! ```text
//! checks FOLDER SURFACE CALLS [cold|shadow]
//! ```
//! The folder is what `python -m bench.load.still FOLDER` writes. `SURFACE` is `check` or `ext_authz`. Its requests are
//! asked once so that tokens are known, and then so many times. Every answer must be a permit. `cold`: before each of these so
//! much memory is read that no cache holds anything of the one before. `shadow`: the same bundle is loaded as a shadow bundle, too.
//!
//! `SURFACE` may also be `approval`: checks of a bundle in which every call needs the approval of a person. Each of so many calls
//! steps up (`step_up_anew`), steps up again (`step_up_again`), is approved, and is permitted (`use_answer`).

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authz_kernel::plan::Plan;
use authz_kernel::source;
use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::envoy::service::auth::v3 as ext_authz;
use authz_lane::{Engine, Listener, Settings, Surface, Transport, World};
use authz_token::{TrustSpec, TrustStore};
use prost::Message as _;

/// The extension's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LISTENER: &str = "bench";
/// What is read before a call that is to find cold caches; more than they hold.
const WALK_BYTES: usize = 4 << 20;
/// Of the processor's caches.
const LINE_BYTES: usize = 64;

/// Parts of a bundle in which every call needs another person.
const APPROVAL_FILES: [(&str, &str); 2] = [
    ("approvals.yaml", "approvals: {queues: {approve: {max_open: 1000, max_hourly: 10000}}}"),
    (
        "policies/approvals.cedar",
        r#"@id("bench-approved") @stepup("approve") forbid (principal, action, resource)
           unless { action == Action::"authz.approve" }
           unless { context.satisfied.contains(Kind::"approve") };
           @id("bench-approvers") permit (principal, action == Action::"authz.approve", resource);"#,
    ),
];
/// The person who approves, and their passkey.
const PERSON: &str = r#"{"issuer": "corp", "sub": "approver", "claims": {}, "method": "passkey",
    "authenticated_at_ms": 1, "acr": "", "uid": null, "passkey": {"credential_id": "Y3JlZA",
    "signature": "c2ln", "authenticator_data": "YQ", "client_data_json": "e30"}}"#;
const PASSKEY: &str = r#"{"issuer": "corp", "sub": "approver", "credential_id": "Y3JlZA",
    "public_key": "a2V5", "created_at": 1}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: checks FOLDER SURFACE CALLS [cold|shadow]");
    let folder = next()?;
    let folder = Path::new(&folder);
    let surface = match next()?.as_str() {
        "approval" => return approvals(folder, next()?.parse()?),
        "check" => Surface::Check,
        "ext_authz" => Surface::ExtAuthz,
        _ => return Err("the surface is `check` or `ext_authz`".into()),
    };
    let calls: usize = next()?.parse()?;
    let (walk, has_shadow) = match next().as_deref() {
        Ok("cold") => (vec![1_u8; WALK_BYTES], false),
        Ok("shadow") => (Vec::new(), true),
        Ok(_) => return Err("the last word is `cold` or `shadow`, or missing".into()),
        Err(_) => (Vec::new(), false),
    };
    let engine = engine(folder, &[], has_shadow)?;
    let requests = requests(&std::fs::read(folder.join(format!("{}.bin", name(surface))))?)?;
    for request in &requests {
        let answer = ask(&engine, surface, request);
        if !permits(surface, &answer)? {
            return Err("a request is not permitted".into());
        }
    }
    let mut took = Duration::ZERO;
    for request in requests.iter().cycle().take(calls) {
        std::hint::black_box(walk.iter().step_by(LINE_BYTES).fold(0, |all, byte| all ^ byte));
        let started = Instant::now();
        std::hint::black_box(ask(&engine, surface, request));
        took = took.saturating_add(started.elapsed());
    }
    engine.close();
    let each = took.as_secs_f64() / f64::from(u32::try_from(calls)?) * 1e6;
    std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{each:.2} us\n"))?;
    Ok(())
}

const fn name(surface: Surface) -> &'static str {
    match surface {
        Surface::ExtAuthz => "ext_authz",
        _ => "check",
    }
}

/// Takes calls through an approval each, which a person gives with a passkey.
fn approvals(folder: &Path, calls: usize) -> Result<(), Box<dyn Error>> {
    let engine = engine(folder, &APPROVAL_FILES, false)?;
    let requests = requests(&std::fs::read(folder.join("check.bin"))?)?;
    engine.put_passkey(PASSKEY.as_bytes())?;
    // The first round verifies the tokens.
    for request in requests.iter().chain(requests.iter().cycle().take(calls)) {
        let asked = step_up_anew(&engine, request);
        let id = challenge_of(&asked)?;
        if challenge_of(&step_up_again(&engine, request))? != id {
            return Err("the open approval is not found again".into());
        }
        approve(&engine, &id)?;
        if !permits(Surface::Check, &use_answer(&engine, request))? {
            return Err("an approved request is not permitted".into());
        }
    }
    engine.close();
    Ok(())
}

#[inline(never)]
fn step_up_anew(engine: &Engine, request: &[u8]) -> Vec<u8> {
    ask(engine, Surface::Check, request)
}

#[inline(never)]
fn step_up_again(engine: &Engine, request: &[u8]) -> Vec<u8> {
    std::hint::black_box(ask(engine, Surface::Check, request))
}

#[inline(never)]
fn use_answer(engine: &Engine, request: &[u8]) -> Vec<u8> {
    std::hint::black_box(std::hint::black_box(ask(engine, Surface::Check, request)))
}

fn challenge_of(answer: &[u8]) -> Result<String, Box<dyn Error>> {
    let decision = wire::CheckResponse::decode(answer)?.decision.ok_or("no decision")?;
    let challenge =
        decision.challenge.ok_or_else(|| format!("no step-up: {}", decision.message))?;
    Ok(challenge.approval_id)
}

/// Approves a call as the person of [`PERSON`].
fn approve(engine: &Engine, id: &str) -> Result<(), Box<dyn Error>> {
    let get = wire::ApprovalsGetRequest { approval_id: id.to_owned(), ..Default::default() };
    let shown = engine
        .approval_show(b"null", &get.encode_to_vec())
        .map_err(|wrong| format!("{wrong:?}"))?;
    let shown = wire::ApprovalsGetResponse::decode(shown.as_slice())?.approval.ok_or("no card")?;
    let answer = wire::ResolveRequest {
        approval_id: id.to_owned(),
        status: wire::ApprovalStatus::Approved as i32,
        digest: shown.digest,
        card_digest: vec![1; 32],
        ..wire::ResolveRequest::default()
    };
    let approved = engine.approval_resolve(PERSON.as_bytes(), &answer.encode_to_vec());
    approved.map_err(|wrong| format!("{wrong:?}"))?;
    Ok(())
}

fn engine(
    folder: &Path,
    more: &[(&str, &str)],
    has_shadow: bool,
) -> Result<Engine, Box<dyn Error>> {
    let settings = Settings {
        audit_path: folder.join("audit.jsonl"),
        audit_unverified_refusals: 10,
        token_cache_size: 10_000,
        ..Settings::offline()
    };
    let listeners = serde_json::json!([{
        "name": LISTENER, "enforcer": null, "insecure_dev": true, "mutual": false, "admin": false, "http": false,
        "surfaces": null,
    }]);
    let engine = Engine::new(settings)?;
    let mut bundle = files(&folder.join("bundle"))?;
    let more = more.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
    bundle.extend(more);
    let bundle = source::load(&bundle, &BTreeMap::new()).map_err(|wrong| format!("{wrong:?}"))?;
    let plan = Arc::new(Plan::compile(bundle, None).map_err(|wrong| format!("{wrong:?}"))?);
    let trust = TrustSpec::from_json(&std::fs::read(folder.join("trust.json"))?)
        .map_err(|wrong| format!("{wrong:?}"))?;
    let trust = TrustStore::compile(&trust).map_err(|wrong| format!("{wrong:?}"))?;
    engine.load(World {
        shadow: has_shadow.then(|| Arc::clone(&plan)),
        plan,
        trust: Arc::new(trust),
        listeners: Listener::list_from_json(listeners.to_string().as_bytes())?,
        peers: Vec::new(),
        credentials: None,
        recipient_lists: BTreeMap::new(),
        fetched: BTreeMap::new(),
    })?;
    Ok(engine)
}

/// The files below a folder, by their path in it.
fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>, Box<dyn Error>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            let within = files(&entry.path())?;
            found.extend(within.into_iter().map(|(path, bytes)| (format!("{name}/{path}"), bytes)));
        } else {
            found.insert(name, std::fs::read(entry.path())?);
        }
    }
    Ok(found)
}

/// Messages, each after its length.
fn requests(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = usize::try_from(prost::encoding::decode_varint(&mut bytes)?)?;
        let (message, rest) = bytes.split_at_checked(length).ok_or("a message is cut short")?;
        found.push(message.to_vec());
        bytes = rest;
    }
    Ok(found)
}

#[inline(never)]
fn ask(engine: &Engine, surface: Surface, request: &[u8]) -> Vec<u8> {
    let transport = Transport::by(LISTENER);
    match surface {
        Surface::ExtAuthz => engine.envoy_check(request, &transport),
        _ => engine.check(request, &transport),
    }
}

fn permits(surface: Surface, answer: &[u8]) -> Result<bool, Box<dyn Error>> {
    Ok(match surface {
        Surface::ExtAuthz => {
            ext_authz::CheckResponse::decode(answer)?.status.is_some_and(|status| status.code == 0)
        }
        _ => wire::CheckResponse::decode(answer)?
            .decision
            .is_some_and(|decision| decision.outcome == wire::Outcome::Permit as i32),
    })
}
