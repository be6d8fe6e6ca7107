//! The output: lines and tables that can be pasted into a document.

/// One line on standard output.
#[expect(clippy::print_stdout, reason = "the figures are the output of this program")]
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// A table whose columns are as wide as their content.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(titles: &[&str]) -> Self {
        Self { rows: vec![titles.iter().map(|&title| title.to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn print(&self) {
        self.lines().iter().for_each(|text| line(text));
    }

    fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let of_cell =
            |row: &Vec<String>, column| row.get(column).map_or(0, |cell: &String| cell.chars().count());
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().map(|row| of_cell(row, column)).max().unwrap_or(0))
            .collect();
        let written = |row: &Vec<String>| {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}")).collect();
            format!("| {} |", cells.join(" | "))
        };
        let rule: Vec<String> = widths.iter().map(|width| format!("{}:", "-".repeat(width + 1))).collect();
        let mut lines: Vec<String> = self.rows.iter().map(written).collect();
        lines.insert(1, format!("|{}|", rule.join("|")));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new(&["run", "µs"]);
        table.row(vec!["1".into(), "10.25".into()]);
        assert_eq!(table.lines(), ["| run |    µs |", "|----:|------:|", "|   1 | 10.25 |"]);
    }
}
