package delivery

import (
	"encoding/json"
	"errors"
	"log/slog"
)

// The messages of the lines with which a sidecar answers to its first document.
const (
	readyMessage    = "ready"
	notReadyMessage = "not ready"
)

// Say logs the answer to the first document: that the sidecar is ready, or why it is not.
// The log writes lines of JSON.
func Say(log *slog.Logger, err error) {
	if err != nil {
		log.Error(notReadyMessage, "error", err.Error())
		return
	}
	log.Info(readyMessage)
}

// Answer reads a line of a sidecar's log. It is false for any but an answer; the error is the
// reason of a sidecar that is not ready, as it gives it.
func Answer(line []byte) (ready bool, reason error) {
	var l struct {
		Msg   string `json:"msg"`
		Error string `json:"error"`
	}
	if json.Unmarshal(line, &l) != nil {
		return false, nil
	}
	switch {
	case l.Msg == readyMessage:
		return true, nil
	case l.Msg == notReadyMessage && l.Error == "":
		return false, errors.New("it gives no reason")
	case l.Msg == notReadyMessage:
		return false, errors.New(l.Error)
	}
	return false, nil
}
