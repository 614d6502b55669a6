//! CLIP's tokenizers: prompts to token ids of a fixed length.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::{AddedToken, ModelWrapper};

use crate::{
    error::contained_now,
    limited_read::{self, from_python},
    models::model_dir::{self, FileError},
};

/// Splits a prompt into words as transformers' `CLIPTokenizer` does.
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The longest input of any CLIP text encoder. A larger `model_max_length` means that the config does not limit it.
const MAX_LENGTH: f64 = 4096.0;

/// Why a tokenizer cannot be loaded or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenizerError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{}` is not a usable tokenizer file: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
    #[error(
        "`{}` has neither `tokenizer.json` nor `vocab.json` with `merges.txt`{other}\n\
         hint: `AutoTokenizer.from_pretrained(MODEL).save_pretrained(DIRECTORY)` of transformers writes them",
        path.display()
    )]
    Missing {
        /// The tokenizer's directory.
        path: PathBuf,
        /// Empty, or what is there instead.
        other: &'static str,
    },
    /// The vocabulary lacks a special token that the config names.
    #[error("`{}`: the token `{token}` is not in the vocabulary", path.display())]
    NoSuchToken {
        /// The tokenizer's directory.
        path: PathBuf,
        token: String,
    },
    #[error("cannot tokenize the prompt: {reason}")]
    Encode { reason: String },
}

/// An encoded prompt. Both lists have the tokenizer's fixed length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// Token ids: start, prompt, end, then padding.
    pub(crate) ids: Vec<i64>,
    /// 1 for every id up to and including the end token; for padding 0, or 1 if the model attends to it.
    pub(crate) attention_mask: Vec<i64>,
}

/// A tokenizer with its fixed length and its padding.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    inner: tokenizers::Tokenizer,
    length: usize,
    pad: i64,
    /// Whether padding is masked. SigLIP attends to it.
    masks: bool,
}

/// The relevant keys of `tokenizer_config.json`. A token is a string, or an object that contains it.
#[derive(Deserialize)]
struct Config {
    model_max_length: Option<f64>,
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    pad_token: Option<Token>,
    unk_token: Option<Token>,
    /// What the model takes besides the ids.
    model_input_names: Option<Vec<String>>,
}

impl Config {
    /// Returns the number of ids of every encoded prompt: `model_max_length`, or the number of positions in the
    /// configuration of the text encoder at `model` if the file at `path` does not limit it.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "3 to 4096")]
    fn length(&self, path: &Path, model: &Path) -> Result<usize, TokenizerError> {
        let found = self.model_max_length.filter(|length| *length <= MAX_LENGTH);
        let length = found.or_else(|| positions(model)).filter(|length| (3.0..=MAX_LENGTH).contains(length));
        length.map(|length| length as usize).ok_or_else(|| {
            let found = self.model_max_length.map_or_else(|| "missing".to_owned(), |length| length.to_string());
            let reason = format!(
                "`model_max_length` is {found}, expected 3 to {MAX_LENGTH}, and `{}` has no `max_position_embeddings`",
                model.display()
            );
            TokenizerError::Invalid { path: path.to_owned(), reason }
        })
    }
}

/// Returns the number of positions of the text encoder with this configuration.
fn positions(model: &Path) -> Option<f64> {
    const KEY: &str = "max_position_embeddings";
    let config: Value = model_dir::read_config(model).ok()?;
    config.get(KEY).or_else(|| config.get("text_config")?.get(KEY))?.as_f64()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Object {
        content: String,
        /// Whether it is matched after lower-casing, that is, in any case.
        #[serde(default)]
        normalized: bool,
    },
}

impl Token {
    fn or(token: Option<Self>, default: &str) -> (String, bool) {
        match token {
            Some(Self::Text(content)) => (content, false),
            Some(Self::Object { content, normalized }) => (content, normalized),
            None => (default.to_owned(), false),
        }
    }
}

impl Tokenizer {
    /// Reads a tokenizer's directory: `tokenizer_config.json`, and `tokenizer.json` or, if that is absent, `vocab.json`
    /// and `merges.txt`, from which it builds the byte-level BPE of transformers' `CLIPTokenizer`. `model` is the path of
    /// the text encoder's configuration, which is read if the tokenizer's has no length.
    ///
    /// # Errors
    /// Returns an error if a file is missing or invalid, or if the vocabulary lacks a special token.
    pub(crate) fn from_dir(dir: &Path, model: &Path) -> Result<Self, TokenizerError> {
        let config_path = dir.join("tokenizer_config.json");
        let config: Config = parse(&config_path)?;
        let length = config.length(&config_path, model)?;
        let masks = config.model_input_names.is_none_or(|names| names.iter().any(|name| name == "attention_mask"));
        let bos = Token::or(config.bos_token, "<|startoftext|>");
        let eos = Token::or(config.eos_token, "<|endoftext|>");
        let (unk, _) = Token::or(config.unk_token, &eos.0);
        let (pad, _) = Token::or(config.pad_token, &eos.0);
        let ready_made = dir.join("tokenizer.json");
        let mut inner = if ready_made.is_file() {
            from_json(&ready_made, &read(&ready_made)?)?
        } else {
            check_vocabulary(dir)?;
            let json = clip_bpe(dir, &bos, &eos, &unk)?;
            from_json(&dir.join("vocab.json"), json.to_string().as_bytes())?
        };
        refuse_chance(&inner, &ready_made)?;
        let missing = |token: &str| TokenizerError::NoSuchToken { path: dir.to_owned(), token: token.to_owned() };
        let id = inner.token_to_id(&pad).ok_or_else(|| missing(&pad))?;
        // The padding token is special, so BPE never sees it in a prompt, even if it is `!`. If it is already special,
        // it stays as the file defines it.
        let known = inner.get_added_vocabulary().is_special_token(&pad);
        let special = (!known).then(|| AddedToken::from(pad, true));
        let configured = contained_now(|| {
            inner.add_special_tokens(special)?;
            inner.with_truncation(None)?.with_padding(None);
            Ok::<_, tokenizers::Error>(())
        });
        let configured = configured.unwrap_or_else(|panic| Err(panic.into()));
        configured.map_err(|error| TokenizerError::Invalid { path: ready_made, reason: error.to_string() })?;
        Ok(Self { inner, length, pad: i64::from(id), masks })
    }

    /// Returns the number of ids of every encoded prompt.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Returns the number of ids of a prompt, with start and end, before it is cut to [`Tokenizer::length`].
    ///
    /// # Errors
    /// Returns the errors of [`Tokenizer::encode`].
    pub(crate) fn count(&self, prompt: &str) -> Result<usize, TokenizerError> {
        Ok(self.split(prompt)?.len())
    }

    fn split(&self, prompt: &str) -> Result<tokenizers::Encoding, TokenizerError> {
        let encoding = contained_now(|| self.inner.encode_fast(prompt, true));
        let encoding = encoding.unwrap_or_else(|panic| Err(panic.into()));
        encoding.map_err(|error| TokenizerError::Encode { reason: error.to_string() })
    }

    /// Encodes a prompt: start, prompt, end and padding. A prompt that is too long is truncated but keeps its end
    /// token.
    ///
    /// # Errors
    /// Returns [`TokenizerError::Encode`] if the library fails. No known prompt causes this.
    pub(crate) fn encode(&self, prompt: &str) -> Result<Tokens, TokenizerError> {
        let encoding = self.split(prompt)?;
        let all = encoding.get_ids();
        let mut ids: Vec<i64> = all.iter().take(self.length).map(|id| i64::from(*id)).collect();
        if all.len() > self.length
            && let (Some(kept), Some(end)) = (ids.last_mut(), all.last())
        {
            *kept = i64::from(*end);
        }
        let mut attention_mask = vec![1; ids.len()];
        ids.resize(self.length, self.pad);
        attention_mask.resize(self.length, i64::from(!self.masks));
        Ok(Tokens { ids, attention_mask })
    }
}

/// Checks that a directory without `tokenizer.json` has the files from which it can be built.
fn check_vocabulary(dir: &Path) -> Result<(), TokenizerError> {
    if dir.join("vocab.json").is_file() && dir.join("merges.txt").is_file() {
        return Ok(());
    }
    let sentencepiece = ["spiece.model", "sentencepiece.bpe.model", "tokenizer.model"];
    let other = match sentencepiece.iter().any(|name| dir.join(name).is_file()) {
        true => ", but a SentencePiece model, which is not read",
        false => "",
    };
    Err(TokenizerError::Missing { path: dir.to_owned(), other })
}

/// Returns the `tokenizer.json` that transformers would write for CLIP's vocabulary and merges.
fn clip_bpe(dir: &Path, bos: &(String, bool), eos: &(String, bool), unk: &str) -> Result<Value, TokenizerError> {
    let vocab: Value = parse(&dir.join("vocab.json"))?;
    let merges_path = dir.join("merges.txt");
    let merges = String::from_utf8(read(&merges_path)?)
        .map_err(|error| TokenizerError::Invalid { path: merges_path, reason: error.to_string() })?;
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty()).collect();
    let id = |token: &str| {
        let id = vocab.get(token).and_then(Value::as_u64);
        id.ok_or_else(|| TokenizerError::NoSuchToken { path: dir.to_owned(), token: token.to_owned() })
    };
    let added = |(token, normalized): &(String, bool)| -> Result<Value, TokenizerError> {
        Ok(json!({
            "id": id(token)?, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": normalized, "special": true,
        }))
    };
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [added(bos)?, added(eos)?],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {"type": "RobertaProcessing", "sep": [eos.0, id(&eos.0)?], "cls": [bos.0, id(&bos.0)?],
            "trim_offsets": false, "add_prefix_space": false},
        "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": unk, "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": false, "vocab": vocab, "merges": merges},
    }))
}

/// Refuses a vocabulary that encodes a prompt another way each time, as in training.
fn refuse_chance(tokenizer: &tokenizers::Tokenizer, path: &Path) -> Result<(), TokenizerError> {
    let ModelWrapper::BPE(pairs) = tokenizer.get_model() else { return Ok(()) };
    let Some(dropout) = pairs.dropout.filter(|dropout| *dropout > 0.0) else { return Ok(()) };
    let reason =
        format!("`dropout` is {dropout}, so that a prompt is encoded another way each time; allowed are 0 and null");
    Err(TokenizerError::Invalid { path: path.to_owned(), reason })
}

fn from_json(path: &Path, json: &[u8]) -> Result<tokenizers::Tokenizer, TokenizerError> {
    // The library panics on some files instead of returning an error.
    let read = contained_now(|| tokenizers::Tokenizer::from_bytes(json));
    read.unwrap_or_else(|panic| Err(panic.into()))
        .map_err(|error| TokenizerError::Invalid { path: path.to_owned(), reason: error.to_string() })
}

fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    Ok(model_dir::read(path, limited_read::TABLE)?)
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, TokenizerError> {
    serde_json::from_slice(&from_python(&read(path)?))
        .map_err(|error| TokenizerError::Invalid { path: path.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;

    fn bundle() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits/tokenizer")
    }

    /// A copy of the bundle's tokenizer without `tokenizer.json`, with an edited config.
    fn from_vocabulary(edit: impl FnOnce(&mut Value)) -> Result<Tokenizer, TokenizerError> {
        let dir = tempfile::tempdir().unwrap();
        for name in ["vocab.json", "merges.txt"] {
            fs::copy(bundle().join(name), dir.path().join(name)).unwrap();
        }
        let mut config: Value = parse(&bundle().join("tokenizer_config.json")).unwrap();
        edit(&mut config);
        fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        Tokenizer::from_dir(dir.path(), &dir.path().join("config.json"))
    }

    #[derive(Deserialize)]
    struct Golden {
        tokens: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        text: String,
        ids: Vec<i64>,
    }

    fn golden() -> Vec<Case> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/diffusers/digits.json");
        parse::<Golden>(&path).unwrap().tokens
    }

    #[test]
    fn ids_equal_transformers_from_either_kind_of_file() {
        let ready_made = Tokenizer::from_dir(&bundle(), Path::new("none")).unwrap();
        let from_vocabulary = from_vocabulary(|_| ()).unwrap();
        let golden = golden();
        assert!(golden.len() >= 10);
        for Case { text, ids } in golden {
            assert_eq!(ready_made.encode(&text).unwrap().ids, ids, "{text:?}");
            assert_eq!(from_vocabulary.encode(&text).unwrap().ids, ids, "{text:?} from vocab.json");
        }
    }

    #[derive(Deserialize)]
    struct Thousand {
        start: i64,
        end: i64,
        pads: BTreeMap<String, i64>,
        lengths: [usize; 2],
        cases: Vec<Vec<Value>>,
    }

    /// `tests/fixtures/tokens`: emoji, scripts, accents, 300 words, the empty text.
    #[test]
    fn a_thousand_texts_have_transformers_ids() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokens/tokens.json");
        let Thousand { start, end, pads, lengths, cases } = parse(&path).unwrap();
        assert_eq!((cases.len(), pads.len()), (1000, 2));
        for (pad, pad_id) in &pads {
            for length in lengths {
                let tokenizer = from_vocabulary(|config| {
                    config["pad_token"] = json!(pad);
                    config["model_max_length"] = json!(length);
                })
                .unwrap();
                for case in &cases {
                    let text = case[0].as_str().unwrap();
                    // The third value is for the other padding token, if it makes a difference.
                    let ids = if pad == "!" { case.last() } else { case.get(1) };
                    let ids = ids.unwrap().as_array().unwrap().iter().map(|id| id.as_i64().unwrap());
                    let mut expected: Vec<i64> = std::iter::once(start).chain(ids.take(length - 2)).collect();
                    expected.push(end);
                    expected.resize(length, *pad_id);
                    assert_eq!(tokenizer.encode(text).unwrap().ids, expected, "{text:?} to {length} with {pad}");
                }
            }
        }
    }

    #[test]
    fn special_tokens_are_matched_in_any_case_if_the_config_says_so() {
        let normalized = |normalized: bool| {
            let token = json!({"content": "<|endoftext|>", "normalized": normalized});
            let tokenizer = from_vocabulary(|config| {
                config["eos_token"] = token.clone();
                config["pad_token"] = token;
            });
            tokenizer.unwrap().encode("<|ENDOFTEXT|>").unwrap()
        };
        assert_eq!(normalized(true).attention_mask[..4], [1, 1, 1, 0], "start, the token, end");
        assert_eq!(normalized(false).attention_mask[3], 1, "letters");
    }

    #[test]
    fn a_long_prompt_keeps_its_end_and_a_short_one_is_masked() {
        let tokenizer = Tokenizer::from_dir(&bundle(), Path::new("none")).unwrap();
        let end = *tokenizer.encode("").unwrap().ids.get(1).unwrap();
        let long = tokenizer.encode(&"zero ".repeat(100)).unwrap();
        assert_eq!((long.ids.len(), long.ids.last()), (tokenizer.length(), Some(&end)));
        assert_eq!(long.attention_mask, vec![1; tokenizer.length()]);
        assert_eq!(tokenizer.encode("").unwrap().attention_mask[..3], [1, 1, 0]);
    }

    #[test]
    fn padding_is_attended_to_if_the_model_takes_no_mask() {
        let tokenizer = from_vocabulary(|config| config["model_input_names"] = json!(["input_ids"])).unwrap();
        assert_eq!(tokenizer.encode("").unwrap().attention_mask, vec![1; tokenizer.length()]);
    }

    #[test]
    fn a_length_that_is_not_stated_is_that_of_the_text_encoder() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            fs::copy(bundle().join(name), dir.path().join(name)).unwrap();
        }
        let path = dir.path().join("tokenizer_config.json");
        let mut config: Value = parse(&path).unwrap();
        let model = dir.path().join("config.json");
        for (length, positions, expected) in [
            (json!(9), json!({"max_position_embeddings": 77}), 9),
            (json!(1e30), json!({"max_position_embeddings": 77}), 77),
            (Value::Null, json!({"text_config": {"max_position_embeddings": 64}}), 64),
        ] {
            config["model_max_length"] = length;
            fs::write(&path, config.to_string()).unwrap();
            fs::write(&model, positions.to_string()).unwrap();
            assert_eq!(Tokenizer::from_dir(dir.path(), &model).unwrap().length(), expected);
        }
    }

    #[test]
    fn another_padding_token_is_removed_from_prompts() {
        let tokenizer = from_vocabulary(|config| config["pad_token"] = json!({"content": "!"})).unwrap();
        let pad = tokenizer.pad;
        let tokens = tokenizer.encode("zero!!").unwrap();
        assert_eq!(
            tokens.ids.iter().filter(|id| **id == pad).count(),
            2 + tokens.attention_mask.iter().filter(|bit| **bit == 0).count()
        );
        assert_eq!(tokens.ids.last(), Some(&pad));
    }

    #[test]
    fn merges_are_not_left_to_chance() {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(bundle().join("tokenizer_config.json"), dir.path().join("tokenizer_config.json")).unwrap();
        let mut ready_made: Value = parse(&bundle().join("tokenizer.json")).unwrap();
        ready_made["model"]["dropout"] = json!(0.5);
        fs::write(dir.path().join("tokenizer.json"), ready_made.to_string()).unwrap();
        let message = Tokenizer::from_dir(dir.path(), Path::new("none")).unwrap_err().to_string();
        assert!(message.contains("tokenizer.json` is not a usable tokenizer file: `dropout` is 0.5, so"), "{message}");
    }

    #[test]
    fn broken_directories_are_reported() {
        let message = |edit: &dyn Fn(&mut Value)| from_vocabulary(|config| edit(config)).unwrap_err().to_string();
        let endless = message(&|config| config["model_max_length"] = json!(1e30));
        assert!(
            endless.contains("`model_max_length` is 1000000000000000000000000000000, expected 3 to 4096"),
            "{endless}"
        );
        let absent = message(&|config| config["pad_token"] = json!("<pad>"));
        assert!(absent.ends_with("the token `<pad>` is not in the vocabulary"), "{absent}");
        let error = Tokenizer::from_dir(Path::new("/no/such"), Path::new("none")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read `/no/such/tokenizer_config.json`");
    }
}
