//! Lists of indexes of a Job, such as `1,3-5,7`. In: the text and how many indexes there are. Out: what it says, or why not.

/// `1` or `3-5`.
fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let parts: Vec<&str> = text.split('-').collect();
    if parts.len() > 2 {
        return Err(format!(
            "the fragment \"{text}\" violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let number = |part: &str| {
        let error = || format!("cannot convert string to integer for index: \"{part}\"");
        part.parse::<i64>().map_err(|_| error())
    };
    let first = number(parts[0])?;
    let large = |index: i64| index >= completions;
    if large(first) {
        return Err(format!("too large index: \"{}\"", parts[0]));
    }
    let Some(last) = parts.get(1) else { return Ok((first, first)) };
    let end = number(last)?;
    if large(end) {
        return Err(format!("too large index: \"{last}\""));
    }
    if first >= end {
        return Err(format!("non-increasing order, previous: {first}, current: {end}"));
    }
    Ok((first, end))
}

/// How many indexes the list holds.
pub(super) fn count(text: &str, completions: i64) -> Result<i64, String> {
    let (mut last, mut total) = (None, 0);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// The first index that both lists hold.
pub(super) fn overlap(one: &str, other: &str, completions: i64) -> Option<i64> {
    let parsed = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let (one, other) = (parsed(one), parsed(other));
    let (mut i, mut j) = (0, 0);
    while let (Some((a, b)), Some((c, d))) = (one.get(i), other.get(j)) {
        if a <= d && c <= b {
            return Some(*a.max(c));
        }
        if a <= c { i += 1 } else { j += 1 }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_or_told_why_not() {
        for (text, want) in [
            ("", Ok(0)),
            ("1", Ok(1)),
            ("0,2-4", Ok(4)),
            ("9", Err("too large index: \"9\"")),
            ("a", Err("cannot convert string to integer for index: \"a\"")),
            ("3,1", Err("non-increasing order, previous: 3, current: 1")),
            ("4-2", Err("non-increasing order, previous: 4, current: 2")),
        ] {
            assert_eq!(count(text, 6), want.map_err(str::to_owned), "{text}");
        }
        assert_eq!(overlap("0,2-4", "3", 6), Some(3));
        assert_eq!(overlap("0,2", "1,5", 6), None);
    }
}
