//! A text in front of each line that can tell where the line comes from.

use std::fmt;

/// A text with fields in braces: `{stream}`, `{pid}`, `{host}`, `{command}`; `{{` and `}}` stand for braces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(Field),
}

/// What a label can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Stream,
    Pid,
    Host,
    Command,
}

const FIELDS: [(&str, Field); 4] = [
    ("stream", Field::Stream),
    ("pid", Field::Pid),
    ("host", Field::Host),
    ("command", Field::Command),
];

/// A label that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelError {
    /// A brace is neither closed nor doubled.
    Brace,
    /// There is no such field.
    Field(String),
}

impl fmt::Display for LabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LabelError::Brace => write!(f, "a brace alone (a doubled one stands for itself)"),
            LabelError::Field(name) => {
                write!(f, "no field {name:?}; there are stream, pid, host and command")
            }
        }
    }
}

impl std::error::Error for LabelError {}

impl Label {
    /// Reads a label as the user writes it.
    ///
    /// # Errors
    /// If a brace is left alone or a field does not exist.
    pub fn parse(text: &str) -> Result<Label, LabelError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            pieces.push(Piece::Text(before.to_owned()));
            if brace.starts_with("{{") || brace.starts_with("}}") {
                pieces.push(Piece::Text(brace[..1].to_owned()));
                rest = &brace[2..];
                continue;
            }
            let name = brace.strip_prefix('{').and_then(|brace| brace.split_once('}'));
            let (name, after) = name.ok_or(LabelError::Brace)?;
            let field = FIELDS.iter().find(|(known, _)| *known == name);
            let (_, field) = field.ok_or_else(|| LabelError::Field(name.to_owned()))?;
            pieces.push(Piece::Field(*field));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Label(pieces))
    }

    /// Whether it shows of which stream a line is.
    pub fn has_stream(&self) -> bool {
        self.0.contains(&Piece::Field(Field::Stream))
    }

    /// Says what a field stands for.
    pub(super) fn set(&mut self, field: Field, text: &str) {
        for piece in &mut self.0 {
            if *piece == Piece::Field(field) {
                *piece = Piece::Text(text.to_owned());
            }
        }
    }

    /// Appends it; what is not known is left out.
    pub(super) fn write_to(&self, out: &mut Vec<u8>) {
        for piece in &self.0 {
            if let Piece::Text(text) = piece {
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut label = Label::parse(text).expect("a label");
        label.set(Field::Stream, "stderr");
        label.set(Field::Host, "example");
        label.set(Field::Command, "make");
        label.set(Field::Pid, "42");
        let mut out = Vec::new();
        label.write_to(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn fields_are_replaced() {
        assert_eq!(shown("{stream}: "), "stderr: ");
        assert_eq!(shown("[{command}[{pid}]@{host}] "), "[make[42]@example] ");
        assert_eq!(shown("{{{pid}}} {{stream}} größer"), "{42} {stream} größer");
        assert_eq!(shown(""), "");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for text in ["{", "a } b", "{pid", "{}", "{ pid }", "{Pid}", "{pid}}"] {
            assert!(Label::parse(text).is_err(), "{text}");
        }
        let error = Label::parse("{name} ").expect_err("no such field").to_string();
        assert_eq!(error, "no field \"name\"; there are stream, pid, host and command");
    }
}
