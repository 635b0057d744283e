//! One measured figure, as a measuring program prints it and a budget names it.

use serde::{Deserialize, Serialize};

/// A figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Which: parts separated by slashes, from the general to the particular, such as `scrape/210 VMs/time`.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what: `ms`, `B`, `instructions`; a ratio has the unit `x`.
    pub unit: String,
    /// How it was taken, in one sentence that somebody else can repeat.
    pub method: String,
}

impl Figure {
    /// A figure.
    pub fn new(name: impl Into<String>, value: f64, unit: &str, method: &str) -> Self {
        Self { name: name.into(), value, unit: unit.to_owned(), method: method.to_owned() }
    }
}

/// The value in the middle, of an even number the mean of the two; `None` of no values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
