package change

import (
	"slices"
	"strings"
)

// Apart takes a Dockerfile in its canonical form apart by who wrote it. Stages are the leading
// instructions that are the operator's own, word by word, each text up to the end of a stage, the
// last one as far as it is the operator's: they are built as the operator's Dockerfile is. Rest is
// what is to be built then, upon the images that came of them, in which the instructions that
// follow mean what they mean in the whole. There are no stages if the first is another already;
// rest is the whole then.
func Apart(own, canonical string) (stages []string, rest func(images []string) string) {
	all := slices.Collect(values(instructions(canonical)))
	n, begins := 0, []int(nil)
	for _, in := range instructions(own) {
		if in.word == "#" {
			if strings.HasPrefix(in.rest, "escape=") && in.rest != `escape=\` {
				break // it reads in another way
			}
			continue
		}
		if in.odd != "" || n == len(all) || all[n] != in {
			break
		}
		if in.word == "FROM" {
			begins = append(begins, n)
		}
		n++
	}
	for i := range begins {
		end := n
		if i+1 < len(begins) {
			end = begins[i+1]
		}
		stages = append(stages, lines(all[:end]))
	}
	return stages, func(images []string) string {
		if len(stages) == 0 {
			return canonical
		}
		out := all[:begins[0]:begins[0]]
		for i, image := range images {
			if _, words := flagsOf(all[begins[i]].rest); len(words) == 3 {
				image += " AS " + words[2]
			}
			out = append(out, instruction{word: "FROM", rest: image})
		}
		if n < len(all) && all[n].word != "FROM" {
			out = append(out, again(all[begins[len(begins)-1]:n])...)
		}
		return lines(append(out, all[n:]...))
	}
}

// again are the instructions of a stage that an image of it does not carry on: arguments, the
// shell, and that the command was set, which an ENTRYPOINT would take away from an image.
func again(stage []instruction) []instruction {
	var out []instruction
	for i, in := range stage {
		last := !slices.ContainsFunc(stage[i+1:], func(later instruction) bool { return later.word == in.word })
		if in.word == "ARG" || (in.word == "SHELL" || in.word == "CMD") && last {
			out = append(out, in)
		}
	}
	return out
}

func lines(all []instruction) string {
	var out strings.Builder
	for _, in := range all {
		out.WriteString(in.word + " " + in.rest + "\n")
	}
	return out.String()
}

func values(seq func(yield func(int, instruction) bool)) func(yield func(instruction) bool) {
	return func(yield func(instruction) bool) {
		seq(func(_ int, in instruction) bool { return yield(in) })
	}
}
