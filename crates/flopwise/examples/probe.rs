//! scratch
fn main() {
    for path in std::env::args().skip(1) {
        let t = std::time::Instant::now();
        match flopwise::import::open(path.as_ref()) {
            Ok(g) => {
                let w = flopwise::cost::work(&g);
                let mut n: Vec<_> = w.unknown().collect(); n.truncate(6);
                eprintln!(
                    "{path} {:?} nodes {} macs {} params {} unknown {:?} syms {:?} notes {:?}",
                    t.elapsed(),
                    g.nodes.len(),
                    w.total.macs.0,
                    w.parameters,
                    w.unknown()
                        .take(3)
                        .map(|(n, r)| (g.nodes[n.0].name.clone(), r.to_string()))
                        .collect::<Vec<_>>(),
                    g.symbols.iter().map(|s| (&s.name, s.min, s.max)).collect::<Vec<_>>(),
                    g.notes.iter().map(|n| &n.text).collect::<Vec<_>>()
                );
            }
            Err(e) => eprintln!("{e}"),
        }
    }
}
