//! The words of each language that search leaves out because every text has them: PostgreSQL's lists, which are those of the
//! Snowball project. The engine in process comes without them, and its dictionaries cannot be used before they are there.

use std::{fs, io, path::Path};

macro_rules! lists {
    ($($file:literal)*) => { [$(($file, include_str!(concat!("stop_words/", $file)))),*] };
}

/// Each file with its text. The other languages have none.
const LISTS: [(&str, &str); 15] = lists!(
    "danish.stop" "dutch.stop" "english.stop" "finnish.stop" "french.stop" "german.stop" "hungarian.stop"
    "italian.stop" "nepali.stop" "norwegian.stop" "portuguese.stop" "russian.stop" "spanish.stop" "swedish.stop"
    "turkish.stop"
);

/// Puts them into the engine's folder of dictionaries, which is made when it is missing.
pub(super) fn write(dictionaries: &Path) -> io::Result<()> {
    fs::create_dir_all(dictionaries)?;
    LISTS.iter().try_for_each(|(file, words)| fs::write(dictionaries.join(file), words))
}
