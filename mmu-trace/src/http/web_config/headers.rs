//! Headers that a configuration may add to every response: the toolkit's list.

use std::collections::BTreeMap;

use hyper::header::{HeaderName, HeaderValue};

/// Each header that may be set, with the values it may have; none: any.
const ALLOWED: &[(&str, &[&str])] = &[
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

/// The headers as they are sent; an error names the header and says what is wrong. An empty value unsets.
pub(super) fn parse(
    headers: BTreeMap<String, Option<String>>,
) -> Result<Vec<(HeaderName, HeaderValue)>, (String, String)> {
    let mut parsed = Vec::new();
    for (name, value) in headers {
        let value = value.unwrap_or_default();
        let header = check(&name, &value).map_err(|reason| (name, reason))?;
        if !value.is_empty() {
            parsed.push(header);
        }
    }
    Ok(parsed)
}

fn check(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let Some((_, values)) = ALLOWED.iter().find(|(allowed, _)| *allowed == name) else {
        let names: Vec<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
        return Err(format!("this header cannot be set; these can: {}", names.join(", ")));
    };
    if !values.is_empty() && !values.contains(&value) {
        return Err(format!("{value:?} is not one of its values: {}", values.join(", ")));
    }
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
    Ok((name, HeaderValue::from_str(value).map_err(|_| "the value is not fit for a header".to_owned())?))
}
