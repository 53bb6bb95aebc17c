//! `key=value,key=value`, with fields that may be quoted, as buildx reads them (RFC 4180 on one line).

/// The fields of one line. A field in double quotes may hold commas, and `""` for a quote.
pub fn fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err(format!("`{after}` stands behind a closing quote")),
        }
    }
}

fn quoted_field(text: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or("a quote is not closed")?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Ok((field, rest)),
        }
    }
}

/// The fields as keys and values; a field without `=` is a key with no value. Keys are lower-cased.
pub fn keys(line: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let split = |field: String| match field.split_once('=') {
        Some((key, value)) => (key.trim().to_lowercase(), Some(value.to_owned())),
        None => (field.trim().to_lowercase(), None),
    };
    Ok(fields(line)?.into_iter().map(split).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_be_quoted() {
        for (line, expected) in [
            ("a=1,b=2", vec!["a=1", "b=2"]),
            ("\"a=1,2\",b", vec!["a=1,2", "b"]),
            ("\"a=\"\"x\"\"\"", vec!["a=\"x\""]),
            ("", vec![""]),
        ] {
            assert_eq!(fields(line).expect(line), expected);
        }
        assert!(fields("\"a").is_err());
        assert!(fields("\"a\"b").is_err());
    }
}
