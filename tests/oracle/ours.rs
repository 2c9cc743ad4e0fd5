//! What the library makes of units, a JSON object a line, for tests/oracle/run to compare with systemd's own word.
//!
//! ours MEMORY_BYTES UNIT…
//!
//! It reads the machine it runs on, as the generator does; MEMORY_BYTES is what percentages are of.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use pypnm_sizing::limits::service::{Affinity, Said, limits, settings};
use pypnm_sizing::limits::{Amount, Scope};
use pypnm_sizing::parse::cpu_list::CpuSet;
use pypnm_sizing::root::Root;
use pypnm_sizing::units::{Index, State};
use serde_json::json;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let memory: u64 = arguments.next().expect("MEMORY_BYTES").parse().expect("bytes");
    let root = Root::at(Some(Path::new("/").as_os_str())).unwrap();
    let mut problems = Vec::new();
    let index = Index::read(&root, &mut problems);
    for name in arguments {
        let Some(unit) = index.load(&name, &mut problems) else {
            println!("{}", json!({ "asked": name, "state": "no unit" }));
            continue;
        };
        let settings = settings(&unit, Some(memory), &mut problems);
        let bytes = |said: &Option<Said<u64>>| said.as_ref().map(|said| said.value);
        let list = |set: &CpuSet| set.iter().collect::<Vec<u32>>();
        let affinity = settings.cpu_affinity.as_ref().map(|said| match &said.value {
            Affinity::Cpus(set) => list(set),
            Affinity::Numa(_) => {
                let limits = limits(&root, &settings, Scope::Service, &mut problems);
                let of_affinity = limits.iter().rev().find(|limit| limit.source == said.source);
                match of_affinity.map(|limit| &limit.amount) {
                    Some(Amount::Cpus(set)) => list(set),
                    _ => Vec::new(),
                }
            }
        });
        let state = match unit.state {
            State::Loaded => "loaded",
            State::NotFound => "not-found",
            State::Masked => "masked",
            State::Bad => "error",
        };
        println!(
            "{}",
            json!({
                "asked": name,
                "id": unit.name,
                "state": state,
                "fragment": unit.fragment,
                "drop_ins": unit.drop_ins,
                "MemoryMax": bytes(&settings.memory_max),
                "MemoryHigh": bytes(&settings.memory_high),
                "MemoryLimit": bytes(&settings.memory_limit),
                "CPUQuotaPerSecUSec": settings.cpu_quota.as_ref().map(|said| u64::from(said.value) * 100),
                "AllowedCPUs": settings.allowed_cpus.as_ref().map(|said| list(&said.value)),
                "CPUAffinity": affinity,
                "Slice": settings.slice,
            })
        );
    }
}
