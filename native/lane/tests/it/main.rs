//! The engine, from bytes to bytes, over every surface and lane.
#![expect(
    clippy::unwrap_used,
    clippy::string_slice,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    reason = "tests"
)]

mod access_log;
mod approval_run;
mod approvals;
mod audit;
mod audit_heads;
mod breakglass;
mod bytes;
mod cold;
mod contexts;
mod credentials;
mod early;
mod envoy;
mod exceptions;
mod exchange;
mod fast;
mod faulty;
mod giving;
mod guards;
mod history;
mod left_out;
mod mcp;
mod objects;
mod obligations;
mod observe;
mod offline;
mod origin_records;
mod own;
mod peers;
mod recipient_lists;
mod redeem;
mod replay;
mod report;
mod revoke;
mod security_event;
mod sessions;
mod shadow;
mod stages;
mod static_secret;
mod support;
mod taskless;
mod tasks;
mod values;
mod words;
