//! The lines of coturn's configuration file, as coturn reads them: a name, and behind `=` or space a value, which may stand in
//! quotes. A name may be spelled as on the command line, and becomes the one that the option has in the table.

use super::options;

/// All lines of a file.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) lines: usize,
    pub(super) comments: usize,
    pub(super) empty: usize,
    pub(super) settings: Vec<Setting>,
}

/// A line that sets something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Counted from one.
    pub(super) line: usize,
    /// The option's own name where the option is known; without the dashes of the command line otherwise.
    pub(super) name: String,
    /// `None` where nothing follows the name.
    pub(super) value: Option<String>,
}

impl Source {
    /// Reads every line; none is refused.
    pub(super) fn parse(text: &str) -> Self {
        let mut source = Self {
            lines: 0,
            comments: 0,
            empty: 0,
            settings: Vec::new(),
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (line, text) in (1..).zip(text.lines()) {
            source.lines = line;
            let text = text.trim();
            if text.is_empty() {
                source.empty += 1;
            } else if text.starts_with('#') {
                source.comments += 1;
            } else {
                source.settings.push(Setting::parse(line, text));
            }
        }
        source
    }
}

impl Setting {
    fn parse(line: usize, text: &str) -> Self {
        let ends = |c: char| c == '=' || c.is_whitespace();
        let (name, rest) = match text.find(ends) {
            Some(end) => text.split_at(end),
            None => (text, ""),
        };
        let value = rest.trim_start_matches(ends);
        let name = name.trim_start_matches('-');
        let name = options::find(name).map_or(name, |option| option.name);
        let has_value = !value.is_empty() || rest.contains('=');
        Self {
            line,
            name: name.to_owned(),
            value: has_value.then(|| unquoted(value).to_owned()),
        }
    }
}

/// The value without quotes around it. As with coturn, a quote within is one of its letters, which counts in a secret.
fn unquoted(value: &str) -> &str {
    match value.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_setting_is_read() {
        for (text, name, value) in [
            ("listening-port=3478", "listening-port", Some("3478")),
            ("  listening-port = 3478  ", "listening-port", Some("3478")),
            ("listening-port 3478", "listening-port", Some("3478")),
            ("listening-port\t3478\r", "listening-port", Some("3478")),
            ("--listening-port=3478", "listening-port", Some("3478")),
            ("-p 3478", "listening-port", Some("3478")),
            (
                "cipher-list=\"HIGH:!aNULL\"",
                "cipher-list",
                Some("HIGH:!aNULL"),
            ),
            ("pidfile=\"/run/a b\" ", "pidfile", Some("/run/a b")),
            ("realm=\"a\"b\"", "realm", Some("a\"b")),
            ("static-auth-secret=a=b", "static-auth-secret", Some("a=b")),
            ("realm=", "realm", Some("")),
            ("no-cli", "no-cli", None),
        ] {
            let expected = Setting {
                line: 1,
                name: name.to_owned(),
                value: value.map(str::to_owned),
            };
            assert_eq!(Source::parse(text).settings, [expected], "{text}");
        }
    }

    #[test]
    fn every_line_is_counted_once() {
        let source = Source::parse("\u{feff}# first\n\n  # second\nno-cli\r\n   \nmobility");
        let counts = (source.comments, source.empty, source.settings.len());
        assert_eq!((source.lines, counts), (6, (2, 2, 2)));
        assert_eq!(source.settings[1].line, 6);
        assert_eq!(Source::parse("").lines, 0);
    }
}
