//! Durations as arguments.

use std::time::Duration;

/// A duration above zero in the notation of the `humantime` crate.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be longer than nothing; write 30s, 5min or 1h".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write 30s, 5min or 1h")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn need_a_unit_and_a_length() {
        assert_eq!(parse("30s"), Ok(Duration::from_secs(30)));
        assert!(parse("30").is_err() && parse("0s").is_err() && parse("x").is_err());
    }
}
