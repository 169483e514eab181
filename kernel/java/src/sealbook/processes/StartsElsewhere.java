package sealbook.processes;

import java.lang.instrument.ClassFileTransformer;
import java.security.ProtectionDomain;
import org.apache.xbean.asm9.ClassReader;
import org.apache.xbean.asm9.ClassVisitor;
import org.apache.xbean.asm9.ClassWriter;
import org.apache.xbean.asm9.MethodVisitor;
import org.apache.xbean.asm9.Opcodes;

/** Lets Spark's classes call {@link Starter#start} where they call {@link ProcessBuilder#start}. */
final class StartsElsewhere implements ClassFileTransformer {
  @Override
  public byte[] transform(
      ClassLoader loader, String name, Class<?> before, ProtectionDomain domain, byte[] code) {
    return Starter.CLASSES.contains(name) || name.equals(Starter.PYTHON) ? changed(name, code) : null;
  }

  /** Returns the class file with its calls replaced. The operands are the same, so no frame changes. */
  static byte[] changed(String name, byte[] code) {
    String instead = name.equals(Starter.PYTHON) ? "refuse" : "start";
    ClassReader reader = new ClassReader(code);
    ClassWriter writer = new ClassWriter(reader, 0);
    reader.accept(
        new ClassVisitor(Opcodes.ASM9, writer) {
          @Override
          public MethodVisitor visitMethod(int access, String method, String type, String generic, String[] thrown) {
            return new MethodVisitor(Opcodes.ASM9, super.visitMethod(access, method, type, generic, thrown)) {
              @Override
              public void visitMethodInsn(int opcode, String owner, String called, String type, boolean itf) {
                if (owner.equals("java/lang/ProcessBuilder") && called.equals("start")) {
                  super.visitMethodInsn(
                      Opcodes.INVOKESTATIC,
                      "sealbook/processes/Starter",
                      instead,
                      "(Ljava/lang/ProcessBuilder;)Ljava/lang/Process;",
                      false);
                } else {
                  super.visitMethodInsn(opcode, owner, called, type, itf);
                }
              }
            };
          }
        },
        0);
    return writer.toByteArray();
  }
}
