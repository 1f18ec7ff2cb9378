//! What the files of a crate say about each other, read token by token: comments and strings cannot mislead it, and it
//! needs neither a compiler nor code that compiles.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// The path of a module below the crate's root: `ring::uring`; the root itself is empty.
pub(crate) type Module = Vec<String>;

/// One file of production code. What is compiled for tests alone is left out: it may look at everything.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) lines: usize,
    /// Every identifier, for what may be named in some places only.
    pub(crate) names: BTreeSet<String>,
    /// Every path of two or more words outside of `use`, as it is written.
    paths: BTreeSet<(Module, Vec<String>)>,
    /// What `use` brings in.
    uses: Vec<Use>,
    /// Items that are defined in the file's module, and in its inline ones.
    items: BTreeSet<(Module, String)>,
    /// Functions by name, with their length in lines.
    pub(crate) functions: Vec<(String, usize)>,
    /// Types with an `impl` block of their own here (no trait).
    pub(crate) impls: BTreeSet<String>,
}

impl File {
    /// Whether a path begins with these words.
    pub(crate) fn mentions(&self, words: &[&str]) -> bool {
        let begins = |path: &Vec<String>| {
            words.iter().zip(path).filter(|(a, b)| a == b).count() == words.len()
        };
        self.paths.iter().any(|(_, path)| begins(path))
            || self.uses.iter().any(|used| begins(&used.path))
    }
}

#[derive(Debug)]
struct Use {
    module: Module,
    path: Vec<String>,
    /// The name that it gets here; `*` for all that there is.
    name: String,
    public: bool,
}

/// A crate's production code by module.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(crate) files: BTreeMap<Module, File>,
}

/// One file that uses another, and a path by which it does.
pub(crate) type Edges = BTreeMap<(Module, Module), String>;

impl Sources {
    /// Reads every file below `directory`, a `src/`.
    pub(crate) fn read(directory: &Path) -> Sources {
        let mut texts = Vec::new();
        collect(directory, directory, &mut texts);
        Sources::parse(texts.iter().map(|(path, text)| (path.as_str(), text.as_str())))
    }

    /// The same from texts, by path below `src/`.
    pub(crate) fn parse<'t>(texts: impl IntoIterator<Item = (&'t str, &'t str)>) -> Sources {
        let (mut files, mut tests) = (BTreeMap::new(), Vec::new());
        for (path, text) in texts {
            let module = module_of(path);
            let tokens: TokenStream =
                text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
            let mut file = File { lines: text.lines().count(), ..File::default() };
            let mut reader = Reader { file: &mut file, tests: &mut tests };
            reader.items(&tokens.into_iter().collect::<Vec<_>>(), &module);
            files.insert(module, file);
        }
        files.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
        Sources { files }
    }

    /// Who uses whom. What is used through another file's `pub use` is that of the file that defines it, and a module
    /// that merely passes something on does not use it.
    pub(crate) fn edges(&self) -> Edges {
        let mut edges = Edges::new();
        for (module, file) in &self.files {
            let mut add = |target: Option<Module>, path: &[String]| {
                if let Some(target) = target.filter(|target| target != module) {
                    edges.entry((module.clone(), target)).or_insert_with(|| path.join("::"));
                }
            };
            for used in &file.uses {
                if used.public && !file.names.contains(&used.name) {
                    continue;
                }
                let absolute = self.absolute(&used.module, &used.path, file);
                // The name of a module alone is no use of it: what is taken from it will be.
                if used.name == "*" {
                    add(absolute.map(|path| self.split(&path).0), &used.path);
                } else if let Some(path) = absolute.filter(|path| !self.is_module(path)) {
                    add(self.definer(&path, 0), &used.path);
                }
            }
            for (within, path) in &file.paths {
                let absolute = self.absolute(within, path, file);
                let absolute = absolute.filter(|path| !self.is_module(path));
                add(absolute.and_then(|path| self.definer(&path, 0)), path);
            }
        }
        edges
    }

    /// The file that defines what a module calls `name`, if that is of this crate.
    pub(crate) fn definer_of(&self, module: &Module, name: &str) -> Option<Module> {
        let file = self.files.get(module)?;
        let own =
            file.items.iter().any(|(within, item)| within.starts_with(module) && item == name);
        if own {
            return Some(module.clone());
        }
        let used = file.uses.iter().find(|used| used.name == name)?;
        let path = self.absolute(&used.module, &used.path, file)?;
        self.definer(&path, 0)
    }

    fn is_module(&self, path: &[String]) -> bool {
        self.files.contains_key(path)
    }

    /// A path as seen from the crate's root, if it leads into this crate.
    fn absolute(&self, within: &Module, path: &[String], file: &File) -> Option<Module> {
        let first = path.first()?.as_str();
        match first {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([within, &path[1..]].concat()),
            "super" => {
                let parent = within.split_last()?.1.to_vec();
                match path.get(1) {
                    Some(next) if next == "super" => self.absolute(&parent, &path[1..], file),
                    _ => Some([&parent, &path[1..]].concat()),
                }
            }
            _ => {
                let child = [within, &path[..1]].concat();
                if self.is_module(&child) {
                    return Some([within, path].concat());
                }
                // A module that `use` has brought in under a name.
                let used = file.uses.iter().find(|used| {
                    used.name == first && used.module == *within && used.path.as_slice() != path
                })?;
                let base = self.absolute(within, &used.path, file)?;
                (path.len() > 1 && self.is_module(&base)).then(|| [&base, &path[1..]].concat())
            }
        }
    }

    /// The file that a path leads to, and what is left of the path there.
    fn split<'p>(&self, path: &'p [String]) -> (Module, &'p [String]) {
        let length = (0..=path.len()).rev().find(|length| self.is_module(&path[..*length]));
        let length = length.unwrap_or(0);
        (path[..length].to_vec(), &path[length..])
    }

    /// The file that defines what a path names, behind whatever passes it on.
    fn definer(&self, path: &[String], depth: usize) -> Option<Module> {
        let (module, rest) = self.split(path);
        let file = self.files.get(&module)?;
        let Some(item) = rest.first().filter(|_| depth < 16) else { return Some(module) };
        if file.items.contains(&(module.clone(), item.clone())) {
            return Some(module);
        }
        let passed_on = |used: &&Use| used.module == module && used.name == *item;
        if let Some(used) = file.uses.iter().find(passed_on) {
            // From another crate, if it leads nowhere in this one.
            let mut path = self.absolute(&module, &used.path, file)?;
            path.extend_from_slice(&rest[1..]);
            return self.definer(&path, depth + 1);
        }
        let globs = file.uses.iter().filter(|used| used.name == "*" && used.module == module);
        for used in globs {
            let Some(base) = self.absolute(&module, &used.path, file) else { continue };
            let (base, _) = self.split(&base);
            let defines = |file: &File| file.items.contains(&(base.clone(), item.clone()));
            if self.files.get(&base).is_some_and(defines) {
                return Some(base);
            }
        }
        Some(module)
    }
}

fn collect(root: &Path, directory: &Path, texts: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(root, &path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below the root").display().to_string();
            texts.push((name, std::fs::read_to_string(&path).expect("source text")));
        }
    }
}

/// `ring/uring.rs` is `ring::uring`, `ring/mod.rs` is `ring`, `lib.rs` is the root. main.rs is a crate of its own.
fn module_of(path: &str) -> Module {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Module::new() } else { path.split('/').map(str::to_owned).collect() }
}

struct Reader<'f> {
    file: &'f mut File,
    /// Modules that are compiled for tests only.
    tests: &'f mut Vec<Module>,
}

impl Reader<'_> {
    /// Items or statements of one module.
    fn items(&mut self, tokens: &[TokenTree], module: &Module) {
        let mut at = 0;
        let mut public = false;
        while at < tokens.len() {
            at = match &tokens[at] {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    self.attribute(tokens, at, module)
                }
                TokenTree::Ident(word) => {
                    let word = word.to_string();
                    if word == "pub" {
                        public = true;
                        at += 1;
                        if group(tokens, at, Delimiter::Parenthesis).is_some() {
                            at += 1;
                        }
                        continue;
                    }
                    let next = self.word(&word, tokens, at, module, public);
                    public = false;
                    next
                }
                TokenTree::Group(inner) => {
                    self.items(&trees(inner), module);
                    at + 1
                }
                _ => at + 1,
            };
        }
    }

    /// Skips an attribute, and with `#[cfg(test)]` what it stands before.
    fn attribute(&mut self, tokens: &[TokenTree], at: usize, module: &Module) -> usize {
        let Some(inner) = group(tokens, at + 1, Delimiter::Bracket) else { return at + 1 };
        if inner.stream().to_string().replace(' ', "") != "cfg(test)" {
            return at + 2;
        }
        let mut at = at + 2;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Ident(word) if word == "mod" => {
                    if let Some(name) = ident(tokens, at + 1) {
                        self.tests.push([module.as_slice(), &[name]].concat());
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => return at + 1,
                TokenTree::Group(inner) if inner.delimiter() == Delimiter::Brace => return at + 1,
                _ => {}
            }
            at += 1;
        }
        at
    }

    fn word(
        &mut self,
        word: &str,
        tokens: &[TokenTree],
        at: usize,
        module: &Module,
        public: bool,
    ) -> usize {
        match word {
            "use" => return self.uses(tokens, at, module, public),
            "mod" => {
                if let (Some(name), Some(inner)) =
                    (ident(tokens, at + 1), group(tokens, at + 2, Delimiter::Brace))
                {
                    self.items(&trees(inner), &[module.as_slice(), &[name]].concat());
                    return at + 3;
                }
            }
            "fn" => self.function(tokens, at),
            "impl" if begins_item(tokens, at) => self.implementation(&tokens[at + 1..]),
            _ => {}
        }
        let defines = ["struct", "enum", "union", "trait", "type", "const", "static", "fn", "mod"];
        let name = match word {
            "macro_rules" => ident(tokens, at + 2),
            _ if defines.contains(&word) => ident(tokens, at + 1),
            _ => None,
        };
        self.file.items.extend(name.map(|name| (module.clone(), name)));
        self.path(tokens, at, module)
    }

    /// A path of words: `a::b::c`, or one word alone.
    fn path(&mut self, tokens: &[TokenTree], at: usize, module: &Module) -> usize {
        let (mut path, mut at) = (Vec::new(), at);
        while let Some(word) = ident(tokens, at) {
            self.file.names.insert(word.clone());
            path.push(word);
            at += 1;
            if !colons(tokens, at) || ident(tokens, at + 2).is_none() {
                break;
            }
            at += 2;
        }
        if path.len() > 1 {
            self.file.paths.insert((module.clone(), path));
        }
        at
    }

    fn uses(&mut self, tokens: &[TokenTree], at: usize, module: &Module, public: bool) -> usize {
        let end = (at..tokens.len())
            .find(|at| matches!(&tokens[*at], TokenTree::Punct(punct) if punct.as_char() == ';'))
            .unwrap_or(tokens.len());
        let mut leaves = Vec::new();
        use_tree(&tokens[at + 1..end], &[], &mut leaves);
        for (path, name) in leaves {
            // A crate's own name counts wherever it stands; what is passed on is not thereby used.
            self.file.names.extend(path.first().cloned());
            self.file.uses.push(Use { module: module.clone(), path, name, public });
        }
        end + 1
    }

    fn function(&mut self, tokens: &[TokenTree], at: usize) {
        let Some(name) = ident(tokens, at + 1) else { return };
        let body = tokens[at..].iter().find_map(|token| match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(Some(group)),
            TokenTree::Punct(punct) if punct.as_char() == ';' => Some(None),
            _ => None,
        });
        if let Some(Some(body)) = body {
            let lines = body.span_close().end().line - tokens[at].span().start().line + 1;
            self.file.functions.push((name, lines));
        }
    }

    /// `impl Type`, without a trait; what an opaque type says begins no item.
    fn implementation(&mut self, tokens: &[TokenTree]) {
        let (mut depth, mut name, mut arrow) = (0, None, false);
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '<' => depth += 1,
                TokenTree::Punct(punct) if punct.as_char() == '>' && !arrow => depth -= 1,
                TokenTree::Ident(word) if word == "for" && depth == 0 => return,
                TokenTree::Ident(word) if word == "where" && depth == 0 => break,
                TokenTree::Ident(word) if depth == 0 => name = Some(word.to_string()),
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break,
                _ => {}
            }
            arrow = matches!(token, TokenTree::Punct(punct) if punct.as_char() == '-');
        }
        self.file.impls.extend(name);
    }
}

/// Whether the word at `at` is the first of an item, not of a type.
fn begins_item(tokens: &[TokenTree], at: usize) -> bool {
    at.checked_sub(1).is_none_or(|before| match &tokens[before] {
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Ident(word) => word == "unsafe",
        TokenTree::Group(group) => group.delimiter() != Delimiter::Parenthesis,
        TokenTree::Literal(_) => false,
    })
}

/// The leaves of a `use`: each whole path, and the name that it gets.
fn use_tree(tokens: &[TokenTree], prefix: &[String], leaves: &mut Vec<(Vec<String>, String)>) {
    let mut path = prefix.to_vec();
    let mut name = None;
    let mut at = 0;
    let mut ended = false;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(word) if word == "as" => {
                name = ident(tokens, at + 1);
                at += 1;
            }
            TokenTree::Ident(word) => path.push(word.to_string()),
            TokenTree::Group(inner) => {
                for part in trees(inner).split(
                    |token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ','),
                ) {
                    use_tree(part, &path, leaves);
                }
                ended = true;
            }
            TokenTree::Punct(punct) if punct.as_char() == '*' => {
                leaves.push((path.clone(), "*".to_owned()));
                ended = true;
            }
            _ => {}
        }
        at += 1;
    }
    if ended || path.len() == prefix.len() {
        return;
    }
    // `a::{self}` is `a`.
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
    leaves.push((path, name));
}

fn trees(group: &Group) -> Vec<TokenTree> {
    group.stream().into_iter().collect()
}

fn ident(tokens: &[TokenTree], at: usize) -> Option<String> {
    match tokens.get(at)? {
        TokenTree::Ident(word) => Some(word.to_string()),
        _ => None,
    }
}

fn group(tokens: &[TokenTree], at: usize, delimiter: Delimiter) -> Option<&Group> {
    match tokens.get(at)? {
        TokenTree::Group(group) if group.delimiter() == delimiter => Some(group),
        _ => None,
    }
}

fn colons(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |at| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    colon(at) && colon(at + 1)
}

/// The groups of modules that reach each other, each with more than one member.
pub(crate) fn circles(edges: &Edges) -> Vec<BTreeSet<Module>> {
    let mut next: HashMap<&Module, Vec<&Module>> = HashMap::new();
    for (from, to) in edges.keys() {
        next.entry(from).or_default().push(to);
    }
    let reach = |from: &Module| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(module) = open.pop() {
            for to in next.get(module).into_iter().flatten() {
                if seen.insert((*to).clone()) {
                    open.push(to);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        next.keys().map(|module| (*module, reach(module))).collect();
    let mut circles = BTreeSet::new();
    for (module, targets) in reached.iter().filter(|(module, targets)| targets.contains(**module)) {
        let back = |target: &&Module| reached.get(target).is_some_and(|all| all.contains(*module));
        circles.insert(targets.iter().filter(back).cloned().collect::<BTreeSet<_>>());
    }
    circles.into_iter().collect()
}
