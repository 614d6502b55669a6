//! Tests of the program from outside. They are one binary because each binary links the engines again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adaptive; // the loop of trainer and schedule, through files alone
mod bad_input; // what the program reports for bad input of every kind, and that nothing is lost
mod batches; // how many images share a batch, and devices with too little memory
mod census; // a thousand files of every kind, and the census of them
mod cookbook; // the recipes of docs/cookbook.md
mod datasets; // ImageNet-LT and iWildCam: small copies run, the full data sets are only planned
mod edits; // what a change of the pipeline recomputes, and what it keeps
mod end_to_end; // the digits pipeline as it ships
mod experiment; // classifiers, the built-in learner, the experiment
mod export; // manifests in the formats of trainers, and their readers
mod foreign; // what other programs do to a lake, and what becomes of it
mod gpu_check; // benches/gpu on the CPU: what is packed runs, and what is broken is named
mod graphs; // passes over exported graphs, and the exports by opset 23
mod hub; // models from Hugging Face's hub
mod images; // the form in which images are stored
mod independent; // the method computed a second time, in Python
mod inspect; // `models inspect`
mod layers; // modules use only those below them, without circles
mod links; // links of the documentation
mod logs; // logs by RUST_LOG, without a secret
mod maintenance; // other writers, garbage collection, retried rejects
mod model_layouts; // models as tools write them: names, folders, configurations, versions; files that never arrived
mod output; // stdout that cannot be written
mod prompts; // class descriptions from an endpoint; common names and excluded classes
mod quickstart; // docs/quickstart.md, as a new user follows it
mod readers; // other engines read the tables
mod repair; // what is damaged is named, taken out of the tables and made again
mod results; // docs/results.md has the figures of its rows
mod resume; // kills, orders and partitions give the same tables
mod runtime; // ONNX Runtime from an index, and what `doctor` says of GPUs
mod s3; // a lake and a source in S3, with faults; workers and signals
mod security; // no code of the working directory runs, and no child process gets a secret
mod sources; // lists, folders, tables and tars hold the same data set
mod sql; // functions and golden queries
mod strangers; // data sets as strangers have them: labels, names, shares, patterns, the census, warnings
mod style; // one style of imports, derives, names and words
mod support; // a temporary workspace and the program
mod tidy; // rules of the code base that no compiler checks
mod warnings; // sizes, levels and prompts that the models do not take as they are
