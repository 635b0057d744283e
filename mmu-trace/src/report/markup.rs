//! Markup that cannot be broken by what stands in it.
//!
//! Names, cgroups and commands come from guests' owners. Every text and every attribute goes through
//! [`escape`] here, and elements are closed by the function that opens them, so the code that says what
//! is on a page need not think of either.

use super::layout::printable;

/// An attribute's name and value; the value is escaped when it is written.
pub(super) type Attribute<'a> = (&'static str, &'a str);

/// HTML or SVG under construction.
#[derive(Debug, Default)]
pub(super) struct Markup(String);

impl Markup {
    /// Adds `fixed` as it is: markup that stands in our source.
    pub(super) fn raw(&mut self, fixed: &'static str) {
        self.0.push_str(fixed);
    }

    /// Adds `text`, escaped and without control characters.
    pub(super) fn text(&mut self, text: &str) {
        self.0.push_str(&escape(&printable(text)));
    }

    /// Adds an element that holds what `content` adds.
    pub(super) fn nest(
        &mut self,
        tag: &'static str,
        attributes: &[Attribute<'_>],
        content: impl FnOnce(&mut Self),
    ) {
        self.start(tag, attributes, ">");
        content(self);
        self.0.extend(["</", tag, ">"]);
        if is_block(tag) {
            self.0.push('\n');
        }
    }

    /// Adds an element that holds `text`.
    pub(super) fn element(&mut self, tag: &'static str, attributes: &[Attribute<'_>], text: &str) {
        self.nest(tag, attributes, |inner| inner.text(text));
    }

    /// Adds an SVG element without content.
    pub(super) fn empty(&mut self, tag: &'static str, attributes: &[Attribute<'_>]) {
        self.start(tag, attributes, "/>\n");
    }

    /// Adds finished markup.
    pub(super) fn append(&mut self, other: &Self) {
        self.0.push_str(&other.0);
    }

    /// The markup as a string.
    pub(super) fn into_string(self) -> String {
        self.0
    }

    fn start(&mut self, tag: &'static str, attributes: &[Attribute<'_>], end: &str) {
        self.0.extend(["<", tag]);
        for (name, value) in attributes {
            self.0.extend([" ", name, "=\"", &escape(&printable(value)), "\""]);
        }
        self.0.push_str(end);
    }
}

/// Whether a line may end behind `tag`, where a blank would not show.
fn is_block(tag: &str) -> bool {
    !matches!(tag, "a" | "b" | "bdi" | "code" | "td" | "th" | "title" | "dt" | "time")
}

/// `text` with everything that means something in HTML written so that it means itself.
#[must_use]
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_names_is_text() {
        assert_eq!(escape("<b a='1'>&\""), "&lt;b a=&#39;1&#39;&gt;&amp;&quot;");
    }

    #[test]
    fn texts_and_attributes_are_escaped() {
        let mut out = Markup::default();
        out.element("td", &[("class", "\"><script>")], "</td>\u{1b}");
        assert_eq!(out.into_string(), "<td class=\"&quot;&gt;&lt;script&gt;\">&lt;/td&gt;\u{fffd}</td>");
    }
}
