//! Checks of files of models, for tests with damaged ones and for the fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "used by tests and fuzzing alone")]

use std::{fs, path::Path};

use super::Tokenizer;
pub(crate) use super::preprocess::fuzzing::preprocess;
use crate::{
    error::chain,
    limited_read::damaged::{assert_clean, without_own_panic},
};

/// The files of a tokenizer, and the configuration of its text encoder.
pub(crate) const TOKENIZER_FILES: [&str; 5] =
    ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "config.json"];

const PROMPTS: [&str; 6] =
    ["", "a photo of a zero", "ONE  two!! 3", "<|endoftext|> é e\u{301} 日本 🦀", "\u{0}\n\t", "!!!"];

/// Checks a tokenizer with a file of which the first byte of `input` tells which one it is.
pub(crate) fn one_of_tokenizer(folder: &Path, input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    tokenizer(folder, TOKENIZER_FILES[usize::from(*choice) % TOKENIZER_FILES.len()], bytes);
}

/// A tokenizer with `bytes` in place of the file `name` is an error, or it encodes any prompt to its length.
pub(crate) fn tokenizer(folder: &Path, name: &str, bytes: &[u8]) {
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits");
    for file in TOKENIZER_FILES {
        let from = if file == "config.json" { "text_encoder" } else { "tokenizer" };
        fs::copy(digits.join(from).join(file), folder.join(file)).unwrap();
    }
    fs::write(folder.join(name), bytes).unwrap();
    if ["vocab.json", "merges.txt"].contains(&name) {
        fs::remove_file(folder.join("tokenizer.json")).unwrap();
    }
    if name == "config.json" {
        let config = fs::read_to_string(folder.join("tokenizer_config.json")).unwrap();
        let unlimited = config.replace("\"model_max_length\"", "\"model_max_length_is_gone\"");
        fs::write(folder.join("tokenizer_config.json"), unlimited).unwrap();
    }
    without_own_panic(|| {
        let tokenizer = match Tokenizer::from_dir(folder, &folder.join("config.json")) {
            Ok(tokenizer) => tokenizer,
            Err(error) => return assert_clean(&chain(&error)),
        };
        assert!((3..=4096).contains(&tokenizer.length()));
        for prompt in PROMPTS {
            let tokens = match tokenizer.encode(prompt) {
                Ok(tokens) => tokens,
                Err(error) => return assert_clean(&chain(&error)),
            };
            assert_eq!((tokens.ids.len(), tokens.attention_mask.len()), (tokenizer.length(), tokenizer.length()));
            assert!(tokens.ids.iter().all(|id| u32::try_from(*id).is_ok()));
            assert!(tokens.attention_mask.is_sorted_by(|a, b| a >= b) && tokens.attention_mask.iter().all(|m| *m <= 1));
            for _ in 0..4 {
                assert_eq!(tokenizer.encode(prompt).unwrap(), tokens, "a prompt has one encoding");
            }
            tokenizer.count(prompt).unwrap();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limited_read::damaged::{each_copy, in_bounds};

    #[test]
    fn damaged_tokenizers_are_errors_or_encode_prompts() {
        in_bounds(|| {
            let folder = tempfile::tempdir().unwrap();
            for name in TOKENIZER_FILES {
                let from = if name == "config.json" { "text_encoder" } else { "tokenizer" };
                let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits").join(from).join(name);
                each_copy(&fs::read(whole).unwrap(), 200, |damaged| tokenizer(folder.path(), name, damaged));
            }
        });
    }
}
