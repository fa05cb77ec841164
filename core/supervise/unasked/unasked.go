// Package unasked keeps bubbletea, which draws the screens of bottle supervise, from asking the
// terminal for its colours when any program that holds it starts. The question would be written by every
// command that has a terminal, wait up to five seconds for terminals that do not answer, and take what
// was typed ahead for the answer.
//
// Packages are initialised in the order of their import paths, as soon as what they import is: this
// one comes after lipgloss and before bubbletea, whose question then has an answer already. It is
// imported for that alone; a test of the program looks whether it still works.
package unasked

import "github.com/charmbracelet/lipgloss"

func init() { lipgloss.SetHasDarkBackground(true) }
