//! Values of flags as Go's programs take them.

use anyhow::Context;
use std::time::Duration;

/// A boolean as Go's flags write it; alone a flag is true.
///
/// # Errors
/// The text is none.
pub fn switch(text: &str) -> anyhow::Result<bool> {
    coracle_api::meta::parse_bool(text)
        .with_context(|| format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))
}

/// Go's durations, such as 1h30m or 500ms, that are not negative.
///
/// # Errors
/// The text is none.
pub fn duration(text: &str) -> anyhow::Result<Duration> {
    // The only number that needs no unit.
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let span: jiff::SignedDuration =
        text.parse().with_context(|| format!("{text:?} is no duration such as 1h30m"))?;
    Duration::try_from(span).with_context(|| format!("{text:?} is negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos_and_none_is_too_long_to_be_read() {
        let cases =
            [("1h30m", 5_400_000), ("2m0s", 120_000), ("500ms", 500), ("1.5s", 1500), ("0s", 0), ("0", 0)];
        for (text, millis) in cases {
            assert_eq!(duration(text).ok(), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "m", "1x", "-1s", "18446744073709551615h", "9999999999999999h9999999999999999h"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
