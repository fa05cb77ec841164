package manifest

import (
	"encoding/json"
	"reflect"
	"strings"
)

// SchemaID names the schema that [Schema] returns.
const SchemaID = "https://bottle.run/schema/bottle.json"

// Schema returns the JSON Schema (draft 2020-12) of a manifest, derived from the
// types of this package. It states the shape; what depends on several keys at
// once (image or dockerfile, an agent's bottle) is stated where JSON Schema can.
func Schema() ([]byte, error) {
	s := schemaOf(reflect.TypeFor[Manifest]())
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["$id"] = SchemaID
	s["title"] = "bottle.yaml"
	out, err := json.MarshalIndent(s, "", "  ")
	return append(out, '\n'), err
}

type object = map[string]any

// alternatives are the keys of a type of which exactly one must be given.
var alternatives = map[reflect.Type][2]string{
	reflect.TypeFor[Bottle](): {"image", "dockerfile"},
	reflect.TypeFor[File]():   {"source", "content"},
}

func schemaOf(t reflect.Type) object {
	text := object{"type": "string"}
	// Scalars are read as written, so a number will do for a string.
	scalar := object{"type": []string{"string", "number", "boolean"}}
	switch t {
	case reflect.TypeFor[StringList]():
		return object{"oneOf": []any{text, object{"type": "array", "items": text}}}
	case reflect.TypeFor[Size]():
		return object{"type": []string{"string", "integer"}, "pattern": `^[0-9]+(\.[0-9]+)?\s*([kKmMgGtT]?[iI]?[bB]?)$`, "minimum": 1}
	case reflect.TypeFor[Mode]():
		return object{"type": []string{"string", "integer"}, "pattern": `^(0o)?[0-7]{1,4}$`}
	case reflect.TypeFor[Duration]():
		return object{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`}
	case reflect.TypeFor[Port]():
		return object{"type": []string{"integer", "string"}, "minimum": 1, "maximum": 65535, "pattern": `^[0-9]+$`}
	case reflect.TypeFor[Workspace]():
		return object{"oneOf": []any{text, object{"const": false}, structSchema(t)}}
	case reflect.TypeFor[Supervise]():
		return object{"oneOf": []any{object{"type": "boolean"}, structSchema(t)}}
	case reflect.TypeFor[Tmpfs](), reflect.TypeFor[Allow]():
		return object{"oneOf": []any{text, structSchema(t)}}
	}
	switch t.Kind() {
	case reflect.Struct:
		return structSchema(t)
	case reflect.Map:
		return object{"type": "object", "additionalProperties": schemaOf(t.Elem())}
	case reflect.Slice:
		return object{"type": "array", "items": schemaOf(t.Elem())}
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int64:
		return object{"type": "integer"}
	case reflect.Float64:
		return object{"type": "number"}
	default:
		return scalar
	}
}

func structSchema(t reflect.Type) object {
	properties := object{}
	var required []string
	fields, names := fieldsOf(t)
	for _, name := range names {
		f := fields[name]
		p := schemaOf(f.Type)
		p["description"] = f.Tag.Get("doc")
		switch f.Tag.Get("key") {
		case keyName:
			p["propertyNames"] = object{"pattern": namePattern.String()}
		case keyEnv:
			p["propertyNames"] = object{"pattern": envPattern.String()}
		case keyGit:
			p["propertyNames"] = object{"pattern": `^[A-Za-z0-9-]+(\..+)?\.[A-Za-z][A-Za-z0-9-]*$`}
		}
		if f.Tag.Get("item") == keyEnv {
			p["items"] = object{"type": "string", "pattern": envPattern.String()}
		}
		if words := strings.Fields(f.Tag.Get("enum")); len(words) > 0 {
			p["enum"] = words
		}
		switch f.Tag.Get("min") {
		case "0":
			p["exclusiveMinimum"] = 0
		case "1":
			p["minimum"] = 1
		}
		if f.Tag.Get("required") == "true" {
			required = append(required, name)
		}
		properties[name] = p
	}
	s := object{"type": "object", "properties": properties, "additionalProperties": false}
	if required != nil {
		s["required"] = required
	}
	if either, ok := alternatives[t]; ok {
		s["oneOf"] = []any{
			object{"required": []string{either[0]}},
			object{"required": []string{either[1]}},
		}
	}
	return s
}
