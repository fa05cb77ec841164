package gitgate

import (
	"io"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/gitgate/internal/pack"
)

// BenchmarkInspect takes in and looks at a pack of 10,000 objects.
func BenchmarkInspect(b *testing.B) {
	w := newWorld(b)
	dir := w.source(10_000)
	text := w.gitIn(dir, "", "pack-objects", "--all", "--stdout", "--delta-base-offset", "-q")
	g := w.gate(nil, nil)
	st := g.state.Load()
	file, err := st.quarantine()
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			b.Fatal(err)
		}
		p := &pusher{client: &client{st: st}, repo: &repository{}, has: &advert{format: pack.SHA1}}
		p.repo.url = &config.GitURL{Host: "git.example.com"}
		in := newInspector(p)
		if p.pack, err = pack.Receive(strings.NewReader(text), file, pack.SHA1, st.packLimits(), in.visit); err != nil {
			b.Fatal(err)
		}
		if err := in.conclude(); err != nil {
			b.Fatal(err)
		}
	}
}
