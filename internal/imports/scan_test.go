package imports

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// file is one Go source file of the module, whatever its build tags.
type file struct {
	Path    string // relative to the module, slashes
	Package string // directory relative to the module, "." for its root
	Test    bool
	Syntax  *ast.File
}

// scan parses every Go file of the module at root: no hidden folders, no testdata, no modules inside the module.
func scan(root string) (*token.FileSet, []file, error) {
	fset := token.NewFileSet()
	var files []file
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if relative == "." {
				return nil
			}
			base := entry.Name()
			if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "vendor" {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(entry.Name(), ".go") {
			return nil
		}
		syntax, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return fmt.Errorf("parse %s: %w", relative, err)
		}
		slashed := filepath.ToSlash(relative)
		files = append(files, file{Path: slashed, Package: path.Dir(slashed), Test: strings.HasSuffix(slashed, "_test.go"), Syntax: syntax})
		return nil
	})
	return fset, files, err
}

// check returns one line for every breach of the rules in the module at root, sorted.
func check(root string) ([]string, error) {
	fset, files, err := scan(root)
	if err != nil {
		return nil, err
	}
	var breaches []string
	for _, f := range files {
		at := func(node ast.Node) string { return fmt.Sprintf("%s:%d", f.Path, fset.Position(node.Pos()).Line) }
		row, placed := rowOf(f.Package)
		if !placed && f.Package != "." {
			breaches = append(breaches, fmt.Sprintf("%s: package %s stands in no row of the layer table: add it to internal/imports/rules_test.go and say why it is needed",
				f.Path, f.Package))
		}
		for _, spec := range f.Syntax.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return nil, fmt.Errorf("read import of %s: %w", at(spec), err)
			}
			if why := layerBreach(f, row, placed, imported); why != "" {
				breaches = append(breaches, at(spec)+": "+why)
			}
			for _, rule := range confinements() {
				if why := rule.breach(f, imported); why != "" {
					breaches = append(breaches, at(spec)+": "+why)
				}
			}
		}
		for _, rule := range forbiddenCalls() {
			for _, use := range rule.uses(f) {
				breaches = append(breaches, fmt.Sprintf("%s: %s must not use %s.%s: %s", at(use), f.Package, rule.Package, use.Sel.Name, rule.Why))
			}
		}
	}
	sort.Strings(breaches)
	return breaches, nil
}

func rowOf(pkg string) (layer, bool) {
	for _, row := range layers() {
		if matches(row.Packages, pkg) {
			return row, true
		}
	}
	return layer{}, false
}

// layerBreach judges an import of one of our packages by another. Tests may import what they like: they stand above everything.
func layerBreach(f file, row layer, placed bool, imported string) string {
	target, ours := strings.CutPrefix(imported, modulePath+"/")
	if !ours || f.Test || !placed || strings.HasPrefix(target, f.Package+"/") || matchesAny(row.May, target) {
		return ""
	}
	return fmt.Sprintf("%s must not import %s: %s", f.Package, target, row.Why)
}

func (c confinement) breach(f file, imported string) string {
	if f.Test && !c.Tests || !matchesAny(c.Imports, imported) {
		return ""
	}
	if c.Only != nil && !matchesAny(c.Only, f.Package) || matchesAny(c.Never, f.Package) && !matchesAny(c.Except, f.Package) {
		return fmt.Sprintf("%s must not import %s: %s", f.Package, imported, c.Why)
	}
	return ""
}

// uses finds the mentions of the forbidden names, under whatever name the file imports their package.
func (c forbiddenCall) uses(f file) []*ast.SelectorExpr {
	if f.Test || !matchesAny(c.Never, f.Package) {
		return nil
	}
	name := ""
	for _, spec := range f.Syntax.Imports {
		if spec.Path.Value == strconv.Quote(c.Package) {
			name = path.Base(c.Package)
			if spec.Name != nil {
				name = spec.Name.Name
			}
		}
	}
	if name == "" {
		return nil
	}
	var found []*ast.SelectorExpr
	ast.Inspect(f.Syntax, func(node ast.Node) bool {
		selector, ok := node.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := selector.X.(*ast.Ident); ok && x.Name == name {
			for _, forbidden := range c.Names {
				if selector.Sel.Name == forbidden {
					found = append(found, selector)
				}
			}
		}
		return true
	})
	return found
}
