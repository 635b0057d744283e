//! Linux guests in QEMU: who is who, whatever they are called, and all of their counts.

use serde_json::Value;
use xtask::guests::{GUESTS, Guests, RENAMED};
use xtask::phase::Series;

use super::{
    Check,
    crowd::within,
    report::{ranges, sum_over},
    series::sum,
};

/// Every comparison; `recorded` is the report of the recording over all of it.
pub(super) fn check(guests: &Guests, recorded: &Value) -> Vec<Check> {
    let mut checks = vec![
        Check::equal("guests", &GUESTS.len(), &guests.pids.len()),
        Check::equal("hits missed by the kernel's own probes", &0, &guests.oracle_misses),
    ];
    checks.extend(domains(guests).iter().flat_map(|domain| check_running(domain, guests)));
    checks.extend(check_killed(guests));
    let told = recorded.pointer("/quality/missed_returns").and_then(Value::as_i64).unwrap_or(-1);
    let kernel = |name: &str| guests.whole.get(&format!("calls:{name}")).copied();
    checks.push(within("page faults", kernel("page_fault"), sum_over(recorded, "/page_faults/total"), told));
    checks.push(within("invalidations", kernel("range_start"), ranges(recorded), told));
    checks
}

/// The names that the guests must have: equal ones get the start of their UUID, and where QEMU is not
/// called so its process's name and id are all there is.
fn domains(guests: &Guests) -> Vec<String> {
    let twice = |name: &str| GUESTS.iter().filter(|guest| guest.identity.name == name).count() > 1;
    let domain = |(guest, pid): (&xtask::guests::Guest, &u32)| {
        let (name, uuid) = (guest.identity.name, guest.identity.uuid);
        match (guest.is_renamed, twice(name)) {
            (true, _) => format!("{RENAMED}-{pid}"),
            (false, true) => format!("{name}-{}", &uuid[..8]),
            (false, false) => name.to_owned(),
        }
    };
    GUESTS.iter().zip(&guests.pids).map(domain).collect()
}

fn check_running(domain: &str, guests: &Guests) -> Vec<Check> {
    let figure = |name: &str| sum(&guests.running, name, &[("domain", domain)]);
    let listed = guests.vms.get("vms").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<&str> = listed.filter_map(|vm| vm.get("name")?.as_str()).collect();
    vec![
        Check::equal(&format!("vm_info of {domain}"), &1, &figure("vm_info")),
        Check::equal(&format!("vms lists {domain}"), &true, &names.contains(&domain)),
        Check::equal(&format!("{domain} booted"), &true, &(figure("page_faults_total") > 1000)),
        Check::equal(&format!("pages of {domain} were merged"), &true, &(figure("ksm_merges_total") > 0)),
    ]
}

fn check_killed(guests: &Guests) -> Vec<Check> {
    let domains = domains(guests);
    let has = |series: &Series, domain: &str| series.keys().any(|key| key.contains(&format!("\"{domain}\"")));
    let mut checks =
        vec![Check::equal("scrapes until the series were gone", &true, &(guests.scrapes_until_gone <= 2))];
    for (n, domain) in domains.iter().enumerate() {
        let lives = n + 1 < domains.len();
        checks.push(Check::equal(
            &format!("{domain} has series after the kill"),
            &lives,
            &has(&guests.killed, domain),
        ));
    }
    checks
}
