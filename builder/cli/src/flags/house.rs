//! Amounts of disk space, and the filters of `kiln du` and `kiln prune`.

use engine::{Filter, Space};

use super::{BadFlag, seconds, size_bytes};

/// An amount of disk space: `10GB`, or `20%` of the disk.
pub fn space(flag: &'static str, text: &str) -> Result<Space, BadFlag> {
    let Some(number) = text.trim().strip_suffix('%') else { return size_bytes(flag, text).map(Space::Bytes) };
    match number.trim().parse() {
        Ok(percent @ 0..=100) => Ok(Space::Percent(percent)),
        _ => Err(BadFlag::new(
            flag,
            text,
            "expected a size such as 10GB, or 0% to 100%",
            format!("{flag} 20%"),
        )),
    }
}

/// Which entries are meant, and for how long they must not have been used, in seconds.
#[derive(Debug, Default)]
pub struct Entries {
    /// All of it must hold; none where all entries are meant.
    pub filter: Option<Filter>,
    /// How long ago the last use is at least.
    pub unused_seconds: u64,
}

const FLAG: &str = "--filter";
/// Filters by the last use, of which the second is the older name.
const AGES: [&str; 2] = ["until", "unused-for"];

/// Several `--filter`, as `docker buildx` reads them: `FIELD`, `FIELD=VALUE`, `FIELD!=VALUE` or `FIELD~=PATTERN`. All must
/// hold. The value of `id` is a pattern.
pub fn entries(texts: &[String]) -> Result<Entries, BadFlag> {
    let mut entries = Entries::default();
    let (mut seen, mut selectors) = (Vec::new(), Vec::new());
    for text in texts {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key.trim(), Some(value.trim().trim_start_matches('='))),
            None => (text.trim(), None),
        };
        let field = key.trim_end_matches(['!', '~']);
        if seen.contains(&field) || (AGES.contains(&field) && seen.iter().any(|other| AGES.contains(other))) {
            let why = format!("`{field}` is asked about twice");
            return Err(BadFlag::new(FLAG, text, why, format!("one {FLAG} for each field")));
        }
        if field.is_empty() {
            return Err(BadFlag::new(FLAG, text, "a filter names a field", format!("{FLAG} until=24h")));
        }
        // A pattern of nothing means everything: a variable that is empty must not remove all.
        if field == "id" && value.is_some_and(str::is_empty) {
            return Err(BadFlag::new(
                FLAG,
                text,
                "expected the beginning of an id",
                format!("{FLAG} id=^f2f0"),
            ));
        }
        seen.push(field);
        if AGES.contains(&field) {
            let bad = |_| BadFlag::new(FLAG, text, "expected a duration", format!("{FLAG} {field}=24h"));
            entries.unused_seconds = seconds(FLAG, value.unwrap_or_default()).map_err(bad)?;
            continue;
        }
        let quoted =
            |value: &str| if value.contains(',') { format!("\"{value}\"") } else { value.to_owned() };
        selectors.push(match value.map(quoted) {
            None => key.to_owned(),
            Some(value) if key == "id" => format!("id~={value}"),
            Some(value) if key != field => format!("{key}={value}"),
            Some(value) => format!("{key}=={value}"),
        });
        let bad = |why: engine::BadFilter| {
            let ages = format!("{why}; and {}", AGES.join(" or "));
            let why = if matches!(why, engine::BadFilter::Field { .. }) { ages } else { why.to_string() };
            BadFlag::new(FLAG, text, why, format!("{FLAG} until=24h or {FLAG} type=exec.cachemount"))
        };
        Filter::parse(&selectors[selectors.len() - 1]).map_err(bad)?;
    }
    if !selectors.is_empty() {
        let parsed = Filter::parse(&selectors.join(","));
        let bad =
            |why: engine::BadFilter| BadFlag::new(FLAG, &texts.join(" "), why.to_string(), "a simpler value");
        entries.filter = Some(parsed.map_err(bad)?);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_are_sizes_or_parts_of_the_disk() {
        for (text, space_of) in [
            ("512MB", Space::Bytes(512 << 20)),
            ("10gb", Space::Bytes(10 << 30)),
            ("0", Space::Bytes(0)),
            ("20%", Space::Percent(20)),
            (" 100 %", Space::Percent(100)),
        ] {
            assert_eq!(space("--reserved-space", text), Ok(space_of), "{text}");
        }
        for text in ["", "%", "101%", "-1%", "1.5%", "10 boxes", "-5"] {
            assert!(space("--reserved-space", text).is_err(), "{text}");
        }
    }

    #[test]
    fn filters_are_read_as_buildx_reads_them() {
        for (texts, filter, unused_seconds) in [
            (&[][..], None, 0),
            (&["until=24h"], None, 86_400),
            (&["unused-for=1h30m", "shared"], Some("shared"), 5400),
            (&["type=regular", "id=^ab"], Some("type==regular,id~=^ab"), 0),
            (&["type!=regular"], Some("type!=regular"), 0),
            (&["description~=a,b"], Some("description~=a,b"), 0),
            (&["type==exec.cachemount"], Some("type==exec.cachemount"), 0),
        ] {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let read = entries(&texts).expect("a filter");
            assert_eq!(read.filter.map(|filter| filter.to_string()).as_deref(), filter, "{texts:?}");
            assert_eq!(read.unused_seconds, unused_seconds, "{texts:?}");
        }
        for (texts, says) in [
            (
                &["colour=red"][..],
                "there are id, type, description, parents, inuse, shared, private, mutable, immutable; and until",
            ),
            (&["until"], "expected a duration"),
            (&["until=yesterday"], "expected a duration"),
            (&["until=1h", "unused-for=2h"], "twice"),
            (&["type=regular", "type=image"], "twice"),
            (&["type=layer"], "no type: there are regular"),
            (&["id=("], "regular expression"),
            (&["id="], "beginning of an id"),
            (&["id~="], "beginning of an id"),
            (&[""], "names a field"),
            (&["=x"], "names a field"),
        ] {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let error = entries(&texts).expect_err(says).to_string();
            assert!(error.contains(says), "{texts:?}: {error}");
        }
    }
}
