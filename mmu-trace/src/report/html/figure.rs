//! The pieces every section is made of: headings, lists, tables, plots with their figures.

use super::super::{
    layout::{Align, Table},
    markup::{Attribute, Markup},
};

/// A section under a heading; `id` is its anchor.
pub(super) fn section(out: &mut Markup, id: &str, heading: &str, content: impl FnOnce(&mut Markup)) {
    out.nest("section", &[("id", id)], |section| {
        section.nest("h2", &[], |h2| h2.element("bdi", &[], heading));
        content(section);
    });
}

/// A list of sentences.
pub(super) fn list<'a>(out: &mut Markup, items: impl IntoIterator<Item = &'a String>) {
    out.nest("ul", &[], |ul| items.into_iter().for_each(|item| ul.element("li", &[], item)));
}

/// A table, if it has rows.
pub(super) fn table(out: &mut Markup, caption: &str, table: &Table) {
    write_table(out, caption, table, None);
}

/// A table whose n-th row leads to the anchor `target`n.
pub(super) fn linked_table(out: &mut Markup, caption: &str, table: &Table, target: &str) {
    write_table(out, caption, table, Some(target));
}

/// A plot, under its caption, above the figures it shows.
pub(super) fn plot(caption: &str, svg: &Markup, figures: &Table) -> Markup {
    let mut out = Markup::default();
    out.nest("figure", &[], |out| {
        out.element("figcaption", &[], caption);
        out.nest("div", &[("class", "plot")], |div| div.append(svg));
        out.nest("details", &[], |details| {
            details.element("summary", &[], "The same as a table");
            table(details, caption, figures);
        });
    });
    out
}

fn write_table(out: &mut Markup, caption: &str, table: &Table, target: Option<&str>) {
    if table.rows().is_empty() {
        return;
    }
    out.nest("div", &[("class", "table")], |div| {
        div.nest("table", &[], |out| {
            out.element("caption", &[], caption);
            out.nest("thead", &[], |thead| thead.nest("tr", &[], |tr| write_heads(tr, table)));
            out.nest("tbody", &[], |tbody| {
                for (i, row) in table.rows().iter().enumerate() {
                    let link = target.map(|target| format!("{target}{}", i + 1));
                    tbody.nest("tr", &[], |tr| write_row(tr, table, row, link.as_deref()));
                }
            });
        });
    });
}

fn write_heads(tr: &mut Markup, table: &Table) {
    for &(head, align) in table.columns() {
        match align {
            Align::Text => tr.element("th", &[("scope", "col")], head),
            Align::Number => tr.element("th", &[("scope", "col"), ("class", "n")], head),
        }
    }
}

/// The first text names the row, whichever column it is in.
fn write_row(tr: &mut Markup, table: &Table, row: &[String], link: Option<&str>) {
    let name = table.columns().iter().position(|(_, align)| *align == Align::Text);
    for (i, (cell, (_, align))) in row.iter().zip(table.columns()).enumerate() {
        if Some(i) == name {
            tr.nest("th", &[("scope", "row")], |th| write_name(th, cell, link));
        } else {
            let class: &[Attribute<'_>] = if *align == Align::Number { &[("class", "n")] } else { &[] };
            tr.element("td", class, cell);
        }
    }
}

fn write_name(th: &mut Markup, name: &str, link: Option<&str>) {
    match link {
        Some(link) => th.nest("a", &[("href", link)], |a| a.element("bdi", &[], name)),
        None => th.element("bdi", &[], name),
    }
}
