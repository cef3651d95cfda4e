// Prints the JSON Schema of KubeletConfiguration, by reflection on the types of
// the kubelet that the image holds; first sentences of comments and the values
// of enumerations come from their sources. Run by ../kubelet-schema.ts.
package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kubelet/config/v1beta1"
)

type schema = map[string]any

// What is written otherwise than its Go type looks.
var special = map[reflect.Type]schema{
	reflect.TypeFor[metav1.Duration]():            {"type": "string", "format": "go-duration"},
	reflect.TypeFor[metav1.Time]():                {"type": "string", "format": "date-time"},
	reflect.TypeFor[logsapi.TimeOrMetaDuration](): {"type": []string{"string", "integer"}},
	reflect.TypeFor[resource.Quantity]():          {"type": []string{"string", "number"}, "format": "quantity"},
	reflect.TypeFor[resource.QuantityValue]():     {"type": []string{"string", "number"}, "format": "quantity"},
	reflect.TypeFor[logsapi.VModuleConfiguration](): {
		"type": "array",
		"items": schema{
			"type": "object", "additionalProperties": false,
			"properties": schema{"filePattern": schema{"type": "string"}, "verbosity": schema{"type": "integer"}},
		},
	},
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

type source struct {
	// Comments of fields, by "Type.Field".
	comments map[string]string
	// Values of string constants, by their type.
	enums map[string][]string
}

var sources = map[string]*source{}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func sourceOf(pkg string) *source {
	if found, ok := sources[pkg]; ok {
		return found
	}
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", pkg).Output()
	if err != nil {
		fail(fmt.Errorf("go list %s: %w", pkg, err))
	}
	made := &source{map[string]string{}, map[string][]string{}}
	sources[pkg] = made
	packages, err := parser.ParseDir(token.NewFileSet(), strings.TrimSpace(string(out)), nil, parser.ParseComments)
	if err != nil {
		fail(err)
	}
	for _, one := range packages {
		for _, file := range one.Files {
			for _, declaration := range file.Decls {
				if general, ok := declaration.(*ast.GenDecl); ok {
					made.read(general)
				}
			}
		}
	}
	return made
}

func (s *source) read(declaration *ast.GenDecl) {
	for _, spec := range declaration.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if structure, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range structure.Fields.List {
					for _, name := range field.Names {
						s.comments[spec.Name.Name+"."+name.Name] = sentence(field.Doc.Text())
					}
				}
			}
		case *ast.ValueSpec:
			named, ok := spec.Type.(*ast.Ident)
			if !ok || declaration.Tok != token.CONST {
				continue
			}
			for _, value := range spec.Values {
				if literal, ok := value.(*ast.BasicLit); ok && literal.Kind == token.STRING {
					text, _ := strconv.Unquote(literal.Value)
					s.enums[named.Name] = append(s.enums[named.Name], text)
				}
			}
		}
	}
}

var ending = regexp.MustCompile(`\.(\s|$)`)

func sentence(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	// Markers for code generators.
	text, _, _ = strings.Cut(text, " +")
	if end := ending.FindStringIndex(text); end != nil {
		text = text[:end[0]+1]
	}
	return text
}

func describe(t reflect.Type) schema {
	if t.Kind() == reflect.Pointer {
		return describe(t.Elem())
	}
	if found, ok := special[t]; ok {
		return found
	}
	if t.Implements(unmarshaler) || reflect.PointerTo(t).Implements(unmarshaler) {
		fail(fmt.Errorf("%s reads its JSON itself: say in this program what it looks like", t))
	}
	switch t.Kind() {
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.String:
		made := schema{"type": "string"}
		if t.PkgPath() != "" {
			if values := sourceOf(t.PkgPath()).enums[t.Name()]; len(values) > 0 {
				sort.Strings(values)
				made["enum"] = values
			}
		}
		return made
	case reflect.Int, reflect.Int32, reflect.Int64:
		return schema{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint32, reflect.Uint64:
		return schema{"type": "integer", "minimum": 0}
	case reflect.Float32, reflect.Float64:
		return schema{"type": "number"}
	case reflect.Slice:
		return schema{"type": "array", "items": describe(t.Elem())}
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": describe(t.Elem())}
	case reflect.Struct:
		properties := schema{}
		fields(t, properties)
		return schema{"type": "object", "properties": properties, "additionalProperties": false}
	}
	fail(fmt.Errorf("%s is of a kind that this program does not know", t))
	return nil
}

func fields(t reflect.Type, into schema) {
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		if name == "" && (field.Anonymous || strings.Contains(options, "inline")) {
			fields(field.Type, into)
			continue
		}
		made := schema{}
		for key, value := range describe(field.Type) {
			made[key] = value
		}
		if comment := sourceOf(t.PkgPath()).comments[t.Name()+"."+field.Name]; comment != "" {
			made["description"] = comment
		}
		into[name] = made
	}
}

func main() {
	made := describe(reflect.TypeFor[v1beta1.KubeletConfiguration]())
	properties := made["properties"].(schema)
	properties["apiVersion"] = schema{"const": "kubelet.config.k8s.io/v1beta1"}
	properties["kind"] = schema{"const": "KubeletConfiguration"}
	made["required"] = []string{"apiVersion", "kind"}
	made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	made["title"] = "KubeletConfiguration"
	made["$comment"] = "Made by scripts/kubelet-schema.ts from k8s.io/kubernetes " + os.Args[1]
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(made); err != nil {
		fail(err)
	}
}
