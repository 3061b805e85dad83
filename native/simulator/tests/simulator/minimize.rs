//! Leaves events out of a scenario as long as it breaks the same invariant.

use crate::events::{Event, Scenario};
use crate::planted::Bug;
use crate::run::run;

/// The smallest list of events that was found to break an invariant, in their order.
pub fn minimize(scenario: &Scenario, bug: Option<Bug>, invariant: &str) -> Vec<Event> {
    let fails = |events: &[Event]| {
        let part = Scenario { setup: scenario.setup, events: events.to_vec() };
        run(&part, bug).violation.is_some_and(|(_, found)| found.invariant == invariant)
    };
    let mut events = scenario.events.clone();
    if let Some((step, _)) = run(scenario, bug).violation {
        events.truncate(step.saturating_add(1));
    }
    let mut size = events.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < events.len() {
            let end = (at + size).min(events.len());
            let rest = [&events[..at], &events[end..]].concat();
            if fails(&rest) {
                events = rest;
            } else {
                at = end;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    let without_nested = |events: &[Event], at: usize| {
        let mut events = events.to_vec();
        events[at].nested = None;
        events
    };
    for at in 0..events.len() {
        let plain = without_nested(&events, at);
        if events[at].nested.is_some() && fails(&plain) {
            events = plain;
        }
    }
    events
}
