//! The files of an evaluation: questions, what answers them, runs of other systems, and filters to search under.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::metrics::Grades;

/// Questions in one evaluation.
const QUERIES_MAX: usize = 100_000;
/// Lines of a file of judgements, of a run, or of filters.
const LINES_MAX: usize = 50_000_000;

/// A question whose right answers are known.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) id: String,
    pub(super) query: String,
    pub(super) right: Grades,
}

#[derive(Debug, Deserialize)]
struct QueryLine {
    // As BEIR's files call them, too.
    #[serde(alias = "_id")]
    id: String,
    #[serde(alias = "text")]
    query: String,
}

/// Ways to narrow a search by as much.
#[derive(Debug)]
pub(super) struct Narrowings {
    pub(super) name: String,
    /// Members of the request, for each way.
    pub(super) requests: Vec<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
struct NarrowingLine {
    name: String,
    #[serde(flatten)]
    request: Map<String, Value>,
}

/// The first `limit` questions for which anything is right, and the number of those that were left out for want of it.
pub(super) fn questions(
    queries: &Path,
    judgements: &Path,
    limit: usize,
) -> Result<(Vec<Question>, usize), String> {
    let mut right = judged(judgements)?;
    let lines: Vec<QueryLine> = json_lines(queries, QUERIES_MAX)?;
    let mut ids = HashSet::new();
    if let Some(twice) = lines.iter().find(|line| !ids.insert(&line.id)) {
        return Err(format!("{}: the id `{}` occurs twice", queries.display(), twice.id));
    }
    let before = lines.len();
    let mut questions: Vec<Question> = lines
        .into_iter()
        .filter_map(|QueryLine { id, query }| right.remove(&id).map(|right| Question { id, query, right }))
        .filter(|question| question.right.values().any(|grade| *grade > 0))
        .collect();
    if questions.is_empty() {
        return Err(format!("{} says of no query what answers it", judgements.display()));
    }
    let without = before - questions.len();
    questions.truncate(limit);
    Ok((questions, without))
}

/// The grades by query. Four columns are TREC's (query, 0, document, grade), three are BEIR's, which have a heading.
fn judged(path: &Path) -> Result<HashMap<String, Grades>, String> {
    let mut judged: HashMap<String, Grades> = HashMap::new();
    for (number, line) in lines(path, LINES_MAX)? {
        let columns = columns(&line);
        let ([query, _, document, grade] | [query, document, grade]) = columns[..] else {
            return Err(wrong(path, number, "three columns (query, document, grade) or TREC's four"));
        };
        match grade.parse::<i64>() {
            // Negative grades are judgements as well: worse than wrong.
            Ok(grade) => {
                let grade = u32::try_from(grade.max(0)).unwrap_or(u32::MAX);
                judged.entry(query.to_owned()).or_default().insert(document.to_owned(), grade);
            }
            Err(_) if number == 1 => {}
            Err(_) => return Err(wrong(path, number, "a whole number as the grade")),
        }
    }
    Ok(judged)
}

/// A run of another system in TREC's format: query, `Q0`, document, rank, score, name. Documents by query, best score first,
/// as `trec_eval` orders them; those with one score as they stand. The name is that of the first line.
pub(super) fn run(path: &Path) -> Result<(String, HashMap<String, Vec<String>>), String> {
    let mut name = String::new();
    let mut scored: HashMap<String, Vec<(f64, String)>> = HashMap::new();
    for (number, line) in lines(path, LINES_MAX)? {
        let columns = columns(&line);
        let &[query, _, document, _, score, tag] = columns.as_slice() else {
            return Err(wrong(path, number, "TREC's six columns: query, Q0, document, rank, score, name"));
        };
        let score = score.parse::<f64>().ok().filter(|score| score.is_finite());
        let score = score.ok_or_else(|| wrong(path, number, "a number as the score"))?;
        if name.is_empty() {
            tag.clone_into(&mut name);
        }
        scored.entry(query.to_owned()).or_default().push((score, document.to_owned()));
    }
    let sorted = scored.into_iter().map(|(query, mut documents)| {
        documents.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        (query, documents.into_iter().map(|(_, document)| document).collect())
    });
    Ok((name, sorted.collect()))
}

/// Lines of one name belong together; groups are in the order in which they first come.
pub(super) fn narrowings(path: &Path) -> Result<Vec<Narrowings>, String> {
    let mut groups: Vec<Narrowings> = Vec::new();
    for NarrowingLine { name, request } in json_lines(path, LINES_MAX)? {
        match groups.iter_mut().find(|known| known.name == name) {
            Some(known) => known.requests.push(request),
            None => groups.push(Narrowings { name, requests: vec![request] }),
        }
    }
    Ok(groups)
}

/// Parts between tabs when there is one, so that names may hold blanks, else between blanks.
fn columns(line: &str) -> Vec<&str> {
    if line.contains('\t') {
        line.split('\t').map(str::trim).collect()
    } else {
        line.split_whitespace().collect()
    }
}

fn json_lines<T: DeserializeOwned>(path: &Path, lines_max: usize) -> Result<Vec<T>, String> {
    let parse = |(number, line): (usize, String)| {
        serde_json::from_str(&line).map_err(|error| format!("{}, line {number}: {error}", path.display()))
    };
    lines(path, lines_max)?.into_iter().map(parse).collect()
}

/// The lines that are not blank, with their numbers.
fn lines(path: &Path, lines_max: usize) -> Result<Vec<(usize, String)>, String> {
    let unreadable = |error| format!("{} cannot be read: {error}", path.display());
    let mut lines = Vec::new();
    for (at, line) in BufReader::new(File::open(path).map_err(unreadable)?).lines().enumerate() {
        if at == lines_max {
            return Err(format!("{} has more than {lines_max} lines", path.display()));
        }
        let line = line.map_err(unreadable)?;
        if !line.trim().is_empty() {
            lines.push((at + 1, line));
        }
    }
    Ok(lines)
}

fn wrong(path: &Path, number: usize, wanted: &str) -> String {
    format!("{}, line {number}: there should be {wanted}", path.display())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tempfile::NamedTempFile;

    use super::*;

    fn file(text: &str) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    const QUERIES: &str = "{\"id\":\"1\",\"query\":\"chess\"}\n\n{\"_id\":\"2\",\"text\":\"fonts\"}\n{\"id\":\"3\",\"query\":\"?\"}\n";

    fn read(judgements: &str, limit: usize) -> Result<(Vec<Question>, usize), String> {
        questions(file(QUERIES).path(), file(judgements).path(), limit)
    }

    #[test]
    fn judgements_may_be_trecs_or_beirs() {
        for judgements in [
            "1 0 gnuchess 2\n1 0 gnubg -1\n2 0 lato 1\n",
            "1\tgnuchess\t2\n1\tgnubg\t0\n2\tlato\t1\n",
            "query-id\tcorpus-id\tscore\n1\tgnuchess\t2\n2\tlato\t1\n3\tnothing\t0\n",
        ] {
            let (questions, without) = read(judgements, 10).unwrap();
            let ids: Vec<_> = questions.iter().map(|question| (&*question.id, &*question.query)).collect();
            assert_eq!((ids, without), (vec![("1", "chess"), ("2", "fonts")], 1), "{judgements}");
            assert_eq!((questions[0].right["gnuchess"], questions[1].right["lato"]), (2, 1));
        }
        assert_eq!(read("1 a 1\n2 b 1", 1).unwrap().0.len(), 1);
    }

    #[test]
    fn documents_may_have_blanks_in_their_names_between_tabs() {
        let (questions, _) = read("1\tfree chess\t1\n", 10).unwrap();
        assert_eq!(questions[0].right["free chess"], 1);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_line() {
        assert!(read("1 a 1\n1 b much\n", 1).unwrap_err().contains("line 2"));
        assert!(read("1 a\n", 1).unwrap_err().contains("line 1"));
        assert!(read("4 a 1\n", 1).unwrap_err().contains("no query"));
        let twice = file(&format!("{QUERIES}{QUERIES}"));
        assert!(questions(twice.path(), file("1 a 1").path(), 1).unwrap_err().contains("`1` occurs twice"));
        assert!(run(file("1 Q0 a 1 nan x").path()).unwrap_err().contains("line 1"));
        assert!(run(Path::new("nowhere.run")).unwrap_err().contains("nowhere.run"));
    }

    #[test]
    fn a_run_is_ordered_by_its_scores() {
        let (name, answers) =
            run(file("1 Q0 a 1 0.5 bm25\n1 Q0 b 2 2 bm25\n1 Q0 c 3 2 bm25\n2 Q0 a 1 1 bm25").path()).unwrap();
        assert_eq!(
            (name.as_str(), &answers["1"]),
            ("bm25", &vec!["b".to_owned(), "c".to_owned(), "a".to_owned()])
        );
        assert_eq!(answers["2"], ["a"]);
    }

    #[test]
    fn narrowings_of_one_name_belong_together() {
        let text = r#"{"name":"10 %","filter":{"metadata.tenth":1}}
            {"name":"one user","user_id":"u"}
            {"name":"10 %","filter":{"metadata.tenth":2}}"#;
        let groups = narrowings(file(text).path()).unwrap();
        let names: Vec<_> = groups.iter().map(|group| (&*group.name, group.requests.len())).collect();
        assert_eq!(names, [("10 %", 2), ("one user", 1)]);
        assert_eq!(groups[0].requests[1]["filter"]["metadata.tenth"], 2);
    }
}
