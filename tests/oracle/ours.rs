//! Prints the settings of units as the library reads them, one JSON object per line. tests/oracle/run compares them with those
//! of systemd.
//!
//! ours MEMORY_BYTES UNIT…
//!
//! It reads the files of the machine that it runs on, as the generator does. Percentages refer to MEMORY_BYTES.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use pypnm_sizing::limits::service::{CpuLists, numa_cpus, settings};
use pypnm_sizing::parse::cpu_list::CpuSet;
use pypnm_sizing::problem::Sourced;
use pypnm_sizing::root::Root;
use pypnm_sizing::units::{Index, LoadState};
use serde_json::json;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let memory: u64 = arguments.next().expect("MEMORY_BYTES").parse().expect("bytes");
    let root = Root::at(Some(Path::new("/").as_os_str())).unwrap();
    let mut problems = Vec::new();
    let names: Vec<String> = arguments.collect();
    let index = Index::read(&root, &names, "", &mut problems);
    for name in &names {
        let Some(unit) = index.load(name, &mut problems) else {
            println!("{}", json!({ "asked": name, "state": "no unit" }));
            continue;
        };
        let settings = settings(&unit, Some(memory), &mut problems);
        let bytes = |setting: &Option<Sourced<u64>>| setting.as_ref().map(|set| set.value);
        let list = |set: &CpuSet| set.iter().collect::<Vec<u32>>();
        let old =
            |setting: &Option<Sourced<CpuLists>>| setting.as_ref().map(|set| list(&set.value.until_257));
        let new = |setting: &Option<Sourced<CpuLists>>| setting.as_ref().map(|set| list(&set.value.from_258));
        let nodes = settings.numa_affinity.as_ref();
        let numa = nodes.and_then(|set| numa_cpus(&root, &set.value, &mut problems)).map(|set| list(&set));
        let state = match unit.state {
            LoadState::Loaded => "loaded",
            LoadState::NotFound => "not-found",
            LoadState::Masked => "masked",
            LoadState::Bad => "error",
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
                "CPUQuotaPerSecUSec": settings.cpu_quota.as_ref().map(|set| u64::from(set.value) * 100),
                "AllowedCPUs": old(&settings.allowed_cpus),
                "CPUAffinity": old(&settings.cpu_affinity),
                "AllowedCPUs from 258": new(&settings.allowed_cpus),
                "CPUAffinity from 258": new(&settings.cpu_affinity),
                "CPUAffinity=numa": numa,
                "Slice": settings.slice,
            })
        );
    }
}
