package main

import (
	"errors"
	"io"
	"testing"
)

func TestWhatComesAfterAReaderIsReleasedIsTheNextOnes(t *testing.T) {
	in, keys := io.Pipe()
	r := newRelay(in)
	first, release := r.reader()
	read := make(chan string)
	begin := func(from io.Reader) {
		go func() {
			p := make([]byte, 2)
			n, err := from.Read(p)
			if err != nil {
				read <- err.Error()
				return
			}
			read <- string(p[:n])
		}()
	}
	begin(first)
	_, _ = keys.Write([]byte("abc")) // a pipe's write takes until it is read
	if got := <-read; got != "ab" {
		t.Errorf("%q", got)
	}
	release()
	release()
	second, releaseSecond := r.reader()
	begin(first)
	if got := <-read; got != io.EOF.Error() {
		t.Errorf("a released reader read %q", got)
	}
	begin(second)
	if got := <-read; got != "c" {
		t.Errorf("%q", got)
	}
	begin(second) // waits
	releaseSecond()
	if got := <-read; got != io.EOF.Error() {
		t.Errorf("%q", got)
	}
	third, _ := r.reader()
	begin(third)
	_, _ = keys.Write([]byte("d"))
	if got := <-read; got != "d" {
		t.Errorf("%q", got)
	}
	_ = keys.CloseWithError(errors.New("gone"))
	begin(third)
	if got := <-read; got != "gone" {
		t.Errorf("%q", got)
	}
}
