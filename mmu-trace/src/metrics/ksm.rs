//! What KSM says of itself.

use super::{exposition::Exposition, table};
use crate::model::Ksm;

pub(super) fn add(exposition: &mut Exposition, ksm: &Ksm) {
    let gauges = [
        (&table::KSM_RUN, ksm.run),
        (&table::KSM_PAGES_SHARED, ksm.pages_shared),
        (&table::KSM_PAGES_SHARING, ksm.pages_sharing),
        (&table::KSM_PAGES_UNSHARED, ksm.pages_unshared),
        (&table::KSM_PAGES_VOLATILE, ksm.pages_volatile),
        (&table::KSM_PAGES_TO_SCAN, ksm.pages_to_scan),
    ];
    for (series, value) in gauges {
        exposition.set(series, &[], value as f64);
    }
    exposition.add(&table::KSM_FULL_SCANS, &[], ksm.full_scans);
    exposition.set(&table::KSM_SLEEP, &[], ksm.sleep_ms as f64 / 1e3);
    if let Some(across) = ksm.merge_across_nodes {
        exposition.set(&table::KSM_MERGE_ACROSS_NODES, &[], across as f64);
    }
    if let Some(bytes) = ksm.general_profit_bytes {
        exposition.set(&table::KSM_GENERAL_PROFIT, &[], bytes as f64);
    }
}
