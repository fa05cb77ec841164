package containerd

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func testInput(t *testing.T) *input {
	t.Helper()
	path := filepath.Join(t.TempDir(), inputFile)
	if err := makeInput(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeNamedPipe|0o444 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	return newInput(t.Context(), path)
}

func TestAnInputWaitsForWhoReadsIt(t *testing.T) {
	for _, text := range []string{"", "some text"} {
		in := testInput(t)
		written := make(chan error, 1)
		go func() {
			_, err := io.WriteString(in, text)
			written <- errors.Join(err, in.Close())
		}()
		f, err := os.Open(in.path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		if err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
		if err := errors.Join(<-written, f.Close()); err != nil {
			t.Error(err)
		}
		in.abandon() // does no harm
	}
}

func TestAnInputThatIsAbandonedWaitsForNobody(t *testing.T) {
	for name, prepare := range map[string]func(in *input){
		"nobody has come": func(*input) {},
		"its directory is gone": func(in *input) {
			if err := os.RemoveAll(filepath.Dir(in.path)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		in := testInput(t)
		opening := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			close(opening)
			_, err := in.Write([]byte("x"))
			done <- err
		}()
		<-opening
		prepare(in)
		in.abandon()
		if err := <-done; err == nil {
			t.Errorf("%s: it was written", name)
		}
	}
}

func TestAnInputThatIsAbandonedIsReadNoMore(t *testing.T) {
	in := testInput(t)
	done := make(chan error, 1)
	go func() {
		buf := make([]byte, 1<<20) // more than a pipe holds
		_, err := in.Write(buf)
		done <- err
	}()
	f, err := os.Open(in.path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := io.ReadFull(f, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	in.abandon()
	if err := <-done; err == nil {
		t.Error("all was written")
	}
}
